//! How a new database sorts.

use super::Server;
use crate::error::sqlstate;
use crate::{DatabaseDetails, LocaleProvider, quote_literal};

/// One way to say how the new database sorts.
pub(super) struct Locale {
    pub(super) clauses: String,
    /// Why it is not the first.
    pub(super) warning: &'static str,
}

/// The source's locale, then the server's own, then the one that fits every encoding.
pub(super) fn locales(server: &Server, details: &DatabaseDetails) -> Vec<Locale> {
    let libc = |collate: &str, ctype: &str| {
        let (collate, ctype) = (quote_literal(collate), quote_literal(ctype));
        format!(" LC_COLLATE {collate} LC_CTYPE {ctype}")
    };
    let source = libc(&details.collate, &details.ctype);
    let locale = quote_literal(details.locale.as_deref().unwrap_or_default());
    let provider = match details.locale_provider {
        LocaleProvider::Libc if server.major() >= 15 => " LOCALE_PROVIDER libc".to_owned(),
        LocaleProvider::Libc => String::new(),
        LocaleProvider::Icu => {
            let rules = details.icu_rules.as_deref().map(quote_literal);
            let rules = rules.map_or_else(String::new, |rules| format!(" ICU_RULES {rules}"));
            format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}{rules}")
        }
        LocaleProvider::Builtin => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
    };
    vec![
        Locale {
            clauses: source + &provider,
            warning: "",
        },
        Locale {
            clauses: String::new(),
            warning: "the source's locale does not exist on the target, so its default is used",
        },
        Locale {
            clauses: libc("C", "C"),
            warning: "the source's locale does not exist on the target, so C is used",
        },
    ]
}

/// `wrong_object_type` and `invalid_parameter_value` for unknown names, `feature_not_supported` for
/// a server without ICU.
pub(super) fn is_locale_trouble(error: &sqlx::Error) -> bool {
    matches!(
        sqlstate(error).as_deref(),
        Some("42809" | "22023" | "0A000")
    )
}

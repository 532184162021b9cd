//! A first configuration file, to be filled in.

use std::path::Path;

/// The text of a configuration that explains itself and loads as it is. It encrypts to
/// `recipient`, whose private key is in the file `identity`.
#[must_use]
pub fn starter(recipient: &str, identity: &Path) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    include_str!("starter.toml")
        .replace("@RECIPIENT@", &quoted(recipient))
        .replace("@IDENTITY@", &quoted(&identity.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::DefaultsConfig;
    use crate::environment::Environment;
    use crate::file::Config;
    use crate::secret::SecretRef;

    fn load(text: &str) -> Config {
        Config::from_toml(text, &Environment::default()).unwrap()
    }

    #[test]
    fn it_loads_as_written_and_says_the_defaults() {
        let config = load(&starter("age1abc", Path::new("/keys/identity.txt")));
        assert_eq!(config.encryption.recipients, ["age1abc"]);
        assert_eq!(config.encryption.identities, None);
        let retention = Some("standard".to_owned());
        let said = DefaultsConfig {
            retention,
            ..DefaultsConfig::default()
        };
        assert_eq!(config.defaults, said);
        assert_eq!(
            config.retention["standard"].tiers(),
            crate::RetentionConfig::default().tiers()
        );
        assert!(config.source.is_empty());
    }

    #[test]
    fn every_line_that_is_commented_out_loads_too() {
        let identity = Path::new("/a \"b\"\\/identity.txt");
        let text = starter("age1abc", identity);
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(code) if !code.starts_with(' ') => code,
            _ => line,
        });
        let config = load(&lines.collect::<Vec<_>>().join("\n"));
        assert_eq!(
            config.encryption.identities,
            Some(SecretRef::File(identity.to_owned()))
        );
        assert_eq!(config.source["shop"].destinations, ["local"]);
        assert_eq!(config.server["main"].host.as_deref(), Some("localhost"));
        assert_eq!(config.destination["s3"].url, "s3://backups/postgres");
    }
}

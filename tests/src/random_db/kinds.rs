//! Types, and values of each as PostgreSQL reads them from text.

use std::fmt::Write as _;

use super::dice::Dice;
use crate::pg::quote_literal;

/// A type.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// One of the server's own, by its name in [`SCALARS`].
    Scalar(&'static str),
    /// An enum or a domain over text: its name, and what it can be.
    Chosen(String, Vec<String>),
    /// A domain: its name, and what it is over.
    Domain(String, Box<Kind>),
    /// A row type: its name and what is in it.
    Row(String, Vec<Kind>),
    /// An array.
    Array(Box<Kind>),
    /// A range over integers or days: its name, whether of days, and whether several in one.
    Range {
        name: String,
        days: bool,
        many: bool,
    },
}

/// The server's own types, as they are written.
const SCALARS: &[&str] = &[
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "numeric(12, 3)",
    "text",
    "character varying(40)",
    "character(7)",
    "bytea",
    "json",
    "jsonb",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "timetz",
    "interval",
    "uuid",
    "inet",
    "cidr",
    "macaddr",
    "bit(9)",
    "bit varying",
    "point",
    "tsvector",
    "pg_lsn",
    "jsonpath",
    "name",
    "\"char\"",
    "timestamptz(2)",
    "money",
    "xml",
];

const TEXTS: &[&str] = &[
    "",
    " ",
    "plain",
    "NULL",
    "null",
    "\\N",
    "\\.",
    "tab\there",
    "new\nline",
    "\r\n",
    "\r",
    "back\\slash",
    "\\\\",
    "'",
    "\"",
    "it's",
    "{a,b}",
    "(1,2)",
    "a,b;c",
    "naïve",
    "列",
    "🙂🙂",
    "e\u{301}",
    "\u{200f}\u{202e}",
    "\u{feff}",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{1}\u{7f}",
    "\u{85}\u{2028}",
    "  padded  ",
    "$$",
    "--",
    "\\x41",
    "0",
    "-0",
    "\u{8}\u{c}\u{b}",
    "trailing\\",
];

const JSONS: &[&str] = &[
    "null",
    "[]",
    "{}",
    "\"\"",
    "1e3",
    "-0",
    "0.10",
    "{\"a\" :  1, \"a\": 2}",
    "[1, null, {\"b\": \"\\u00e9\"}]",
    "\"tab\\there\\\\ and \\\" quote\"",
    "{\"\": {\"深い\": [true, false]}}",
    "123456789012345678901234567890.5",
    " \"space\" ",
];

impl Kind {
    pub(super) fn scalar(dice: &mut Dice) -> Self {
        Self::Scalar(dice.one_of(SCALARS))
    }

    /// As it is written in a definition.
    pub(super) fn sql(&self) -> String {
        match self {
            Self::Scalar(name) => (*name).to_owned(),
            Self::Chosen(name, _)
            | Self::Domain(name, _)
            | Self::Row(name, _)
            | Self::Range { name, .. } => name.clone(),
            Self::Array(inner) => format!("{}[]", inner.sql()),
        }
    }

    /// Whether a btree index and `=` know it.
    pub(super) fn is_ordered(&self) -> bool {
        match self {
            Self::Scalar(name) => !matches!(*name, "json" | "point" | "jsonpath" | "xml"),
            Self::Chosen(..) | Self::Range { .. } => true,
            Self::Domain(_, inner) | Self::Array(inner) => inner.is_ordered(),
            Self::Row(_, fields) => fields.iter().all(Self::is_ordered),
        }
    }

    /// A value as an SQL expression.
    pub(super) fn literal(&self, dice: &mut Dice) -> String {
        if dice.once_in(5) {
            return "NULL".to_owned();
        }
        format!("{}::{}", quote_literal(&self.text(dice)), self.sql())
    }

    /// A value as the server reads it.
    fn text(&self, dice: &mut Dice) -> String {
        match self {
            Self::Scalar(name) => scalar(name, dice),
            Self::Chosen(_, labels) => labels[dice.below(labels.len())].clone(),
            Self::Domain(_, inner) => inner.text(dice),
            Self::Row(_, fields) => {
                let fields: Vec<_> = fields.iter().map(|field| field.quoted(dice, "")).collect();
                format!("({})", fields.join(","))
            }
            Self::Array(inner) => {
                let count = dice.below(5);
                let items: Vec<_> = (0..count).map(|_| inner.quoted(dice, "NULL")).collect();
                let bounds = if count > 0 && dice.once_in(6) {
                    let first = dice.number(1);
                    let last = first + i64::try_from(count).unwrap_or(1) - 1;
                    format!("[{first}:{last}]=")
                } else {
                    String::new()
                };
                format!("{bounds}{{{}}}", items.join(","))
            }
            Self::Range { days, many, .. } => ranges(*days, *many, dice),
        }
    }

    /// As an element of an array or a row.
    fn quoted(&self, dice: &mut Dice, null: &str) -> String {
        if dice.once_in(5) {
            return null.to_owned();
        }
        let mut text = String::from("\"");
        for c in self.text(dice).chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text + "\""
    }
}

fn scalar(name: &str, dice: &mut Dice) -> String {
    match name {
        "boolean" => dice.one_of(&["true", "false"]).to_owned(),
        "smallint" => pick_or(dice, &["-32768", "32767", "0"], |dice| {
            dice.number(4).to_string()
        }),
        "integer" => pick_or(dice, &["-2147483648", "2147483647", "0"], |dice| {
            dice.number(9).to_string()
        }),
        "bigint" => {
            let ends = ["-9223372036854775808", "9223372036854775807", "0"];
            pick_or(dice, &ends, |dice| dice.number(18).to_string())
        }
        "numeric(12, 3)" => pick_or(dice, &["NaN", "0.0005", "-999999999.999"], |dice| {
            format!("{}.{:03}", dice.number(9), dice.below(1000))
        }),
        "money" => format!("{}.{:02}", dice.number(9), dice.below(100)),
        "text" => text(dice),
        "character varying(40)" => text(dice).chars().take(40).collect(),
        "character(7)" => text(dice).chars().take(7).collect(),
        "name" => text(dice).chars().take(15).collect(),
        "\"char\"" => dice.one_of(&["", "a", "Z", " ", "~"]).to_owned(),
        "bytea" => format!("\\x{}", digits(dice, 16, 80)),
        "json" | "jsonb" => dice.one_of(JSONS).to_owned(),
        "jsonpath" => dice
            .one_of(&["$", "$.a[*] ? (@ > 1)", "strict $.\"b c\"", "lax $[0 to 2]"])
            .to_owned(),
        "xml" => dice
            .one_of(&[
                "<a/>",
                "<a b=\"c\">&amp;<d/></a>",
                "text alone",
                "<!-- c --><x>é</x>",
            ])
            .to_owned(),
        "uuid" => {
            let hex = digits(dice, 16, 0);
            format!("{hex}{}", digits(dice, 16, 0))[..32].to_owned()
        }
        "bit(9)" => format!("{:09b}", dice.below(512)),
        "bit varying" => digits(dice, 2, 40),
        "point" => pick_or(dice, &["(1e300,-0)", "(NaN,Infinity)"], |dice| {
            format!("({},{})", dice.number(5), dice.number(5))
        }),
        "tsvector" => dice
            .one_of(&["", "a:1A fat:2B,4C", "'it''s' 'odd word':3", "列"])
            .to_owned(),
        "pg_lsn" => format!("{:X}/{:X}", dice.below(4096), dice.bits() >> 32),
        "inet" | "cidr" | "macaddr" => network(name, dice),
        "real" | "double precision" | "numeric" => number(name, dice),
        _ => moment(name, dice),
    }
}

fn pick_or(dice: &mut Dice, odd: &[&str], usual: impl FnOnce(&mut Dice) -> String) -> String {
    if dice.once_in(3) {
        dice.one_of(odd).to_owned()
    } else {
        usual(dice)
    }
}

fn text(dice: &mut Dice) -> String {
    match dice.below(8) {
        0..5 => dice.one_of(TEXTS).to_owned(),
        5 => dice
            .one_of(TEXTS)
            .chars()
            .chain(dice.one_of(TEXTS).chars())
            .collect(),
        _ => {
            let count = dice.below(40);
            let mut text = String::new();
            for _ in 0..count {
                // Any character but the one that no text may have.
                let code =
                    u32::try_from(dice.bits() % [0x80, 0x800, 0x1_0000, 0x11_0000][dice.below(4)]);
                text.extend(code.ok().and_then(char::from_u32).filter(|c| *c != '\0'));
            }
            text
        }
    }
}

/// Digits to a base, `most` at most; 0 stands for as many as one number gives.
fn digits(dice: &mut Dice, base: u64, most: usize) -> String {
    let mut text = String::new();
    if most == 0 {
        write!(text, "{:016x}", dice.bits()).expect("text takes text");
        return text;
    }
    // Whole bytes.
    for _ in 0..dice.below(most / 2) * 2 {
        let digit = u32::try_from(dice.bits() % base).unwrap_or(0);
        text.extend(char::from_digit(digit, 16));
    }
    text
}

fn number(name: &str, dice: &mut Dice) -> String {
    let odd = match name {
        "real" => &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "1e-45",
            "3.4028235e38",
            "0.1",
            "1.1754944e-38",
        ][..],
        "double precision" => &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "5e-324",
            "1.7976931348623157e308",
            "0.30000000000000004",
        ],
        _ => &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0.000",
            "1.10",
            "1e-300",
            "12345678901234567890123456789012345678901234567890.123456789",
        ],
    };
    pick_or(dice, odd, |dice| {
        format!("{}.{}", dice.number(9), dice.below(100_000))
    })
}

fn network(name: &str, dice: &mut Dice) -> String {
    let odd = match name {
        "inet" => &["::1/64", "fe80::1", "0.0.0.0/0", "::ffff:1.2.3.4"][..],
        "cidr" => &["::/0", "10.0.0.0/8", "2001:db8::/32"],
        _ => &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
    };
    pick_or(dice, odd, |dice| {
        let byte = dice.below(256);
        match name {
            "inet" => format!("192.168.{byte}.{}/{}", dice.below(256), dice.between(1, 32)),
            "cidr" => format!("10.{byte}.0.0/16"),
            _ => format!("00:11:22:33:44:{byte:02x}"),
        }
    })
}

fn moment(name: &str, dice: &mut Dice) -> String {
    let odd = match name {
        "date" => &[
            "infinity",
            "-infinity",
            "4713-01-01 BC",
            "0001-12-31 BC",
            "5874897-12-31",
            "2024-02-29",
        ][..],
        "timestamp" => &[
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "2026-03-29 02:30",
        ],
        "time" => &["00:00", "24:00", "23:59:59.999999"],
        "timetz" => &["00:00+15:59", "24:00-15:59", "12:00:00.000001+00:00:01"],
        "interval" => &[
            "0",
            "-1 year 2 mons -3 days 04:05:06.7",
            "178000000 years",
            "-0.000001 s",
            "P1Y2M3DT4H5M6.789S",
        ],
        _ => &[
            "infinity",
            "-infinity",
            "4713-01-02 00:00:00+00 BC",
            "294276-12-30 00:00:00+00",
            "2026-10-25 02:30:00+02",
        ],
    };
    pick_or(dice, odd, |dice| {
        let day = format!(
            "{:04}-{:02}-{:02}",
            dice.between(1, 9999),
            dice.between(1, 12),
            dice.between(1, 28)
        );
        let clock = format!(
            "{:02}:{:02}:{:02}.{:06}",
            dice.below(24),
            dice.below(60),
            dice.below(60),
            dice.below(1_000_000)
        );
        match name {
            "date" => day,
            "time" => clock,
            "timetz" => format!("{clock}+0{}:30", dice.below(10)),
            "interval" => format!("{} mons {} days {clock}", dice.number(3), dice.number(4)),
            "timestamp" => format!("{day} {clock}"),
            _ => format!("{day} {clock}+0{}", dice.below(10)),
        }
    })
}

fn ranges(days: bool, many: bool, dice: &mut Dice) -> String {
    if !many {
        return range(days, dice.between(0, 900), dice);
    }
    let count = dice.below(4);
    let each = (0..count).map(|n| range(days, 300 * n, dice));
    format!("{{{}}}", each.collect::<Vec<_>>().join(","))
}

fn range(days: bool, from: usize, dice: &mut Dice) -> String {
    let to = from + dice.between(1, 90);
    let shown = |number: usize| {
        if days {
            format!(
                "20{:02}-{:02}-{:02}",
                number / 336,
                1 + number / 28 % 12,
                1 + number % 28
            )
        } else {
            number.to_string()
        }
    };
    match dice.below(6) {
        0 => "empty".to_owned(),
        1 => format!("(,{})", shown(to)),
        2 => format!("[{},)", shown(from)),
        3 => "(,)".to_owned(),
        _ => format!("[{},{})", shown(from), shown(to)),
    }
}

//! Names that careless quoting, splitting or cutting gets wrong.

use super::dice::Dice;
use crate::pg::quote_identifier;

/// As long as a name may be, in bytes.
const LONGEST: usize = 63;

const BASES: &[&str] = &[
    "plain",
    "with space",
    " leading",
    "trailing ",
    "MixedCase",
    "UPPER",
    "select",
    "user",
    "order",
    "table",
    "all",
    "current_user",
    "quo\"te",
    "\"",
    "it's",
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "tab\there",
    "a.b",
    "*",
    "%s",
    "$1",
    "$$",
    "{}",
    "--comment",
    "/* comment",
    "; DROP SCHEMA public; --",
    "naïve",
    "列",
    "таблица",
    "🙂",
    "e\u{301}",
    "\u{200f}rtl",
    "\u{feff}bom",
    "dbname=postgres",
    "-Fp",
    "../up",
    "pg_like",
    "1st",
    "null",
    "\u{1}",
    "~",
    "#",
    "\u{7f}",
    "a_name_as_long_as_a_name_may_be_in_postgresql_that_is_sixty_three",
    "ééééééééééééééééééééééééééééééééé",
];

/// Makes names of which none comes twice.
#[derive(Debug, Default)]
pub(super) struct Names(usize);

impl Names {
    /// A new name, quoted.
    pub(super) fn fresh(&mut self, dice: &mut Dice) -> String {
        quote_identifier(&self.raw(dice))
    }

    fn raw(&mut self, dice: &mut Dice) -> String {
        self.0 += 1;
        if dice.once_in(3) {
            return format!("n{}", self.0);
        }
        let number = self.0.to_string();
        let mut base = dice.one_of(BASES).to_owned();
        while base.len() + number.len() > LONGEST {
            base.pop();
        }
        if dice.once_in(2) {
            base + &number
        } else {
            number + &base
        }
    }
}

//! A restored database takes the place of a live one at one moment, with all that belongs to the
//! name, and gives it back. Whatever ends the run in between, the name leads to one of the two.

mod exchange;
mod hostile;
mod killed;
mod refused;
mod stage;

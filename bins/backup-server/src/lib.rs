//! What people and programs ask over HTTP. Answers come from what was last read of the places,
//! never from the places themselves, so that no number of readers makes the stores work; work is
//! queued, within limits.

mod access;
mod answer;
mod audit;
mod body;
mod bot;
mod browse;
mod connections;
mod failures;
mod idempotency;
mod openapi;
mod pages;
mod problem;
mod refresh;
mod routes;
mod serve;
mod session;
mod shell;
mod state;
mod systemd;
mod turns;
mod upkeep;

pub use bot::talk;
pub use openapi::document;
pub use refresh::{read_once, refresh};
pub use routes::router;
pub use serve::{Listening, serve};
pub use state::Server;
pub use upkeep::upkeep;

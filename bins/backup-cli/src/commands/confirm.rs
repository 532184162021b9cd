//! Being sure that somebody means it.

use std::io::{BufRead as _, IsTerminal as _};

use backup_app::AppError;
use tokio::sync::oneshot;

use crate::render;

/// Says on stderr what is going to happen, and asks for a word on the terminal. Whatever else
/// happens than that the word is typed is the refusal.
///
/// A thread of its own reads the answer, so that a signal is heeded meanwhile; it ends with the
/// process.
pub(super) async fn ask(text: String, word: String, refusal: AppError) -> Result<(), AppError> {
    let (sender, receiver) = oneshot::channel();
    let shown = render::name(&word);
    std::thread::spawn(move || {
        // Nobody waits any more when a signal came.
        let _ = sender.send(answer(&text, &shown));
    });
    match receiver.await {
        Ok(Some(answer)) if answer == word => Ok(()),
        _ => Err(refusal),
    }
}

fn answer(text: &str, word: &str) -> Option<String> {
    render::note(text);
    if !std::io::stdin().is_terminal() {
        return None;
    }
    render::prompt(&format!("Type {word} to go on: "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).ok()?;
    Some(answer.trim_end_matches(['\r', '\n']).to_owned())
}

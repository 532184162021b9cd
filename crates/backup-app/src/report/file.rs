//! Where a report goes.

use std::path::{Path, PathBuf};

use super::DrillView;
use crate::error::AppError;
use crate::whole_file::{self, Readers, parent};

/// Where a report goes, by what somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportPath {
    /// Both forms, under names of their own, into this directory.
    Directory(PathBuf),
    /// The page.
    Page(PathBuf),
    /// The JSON.
    Json(PathBuf),
}

impl ReportPath {
    /// A file by its extension, unless it is a directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("html" | "htm") if !path.is_dir() => Self::Page(path.to_owned()),
            Some("json") if !path.is_dir() => Self::Json(path.to_owned()),
            _ => Self::Directory(path.to_owned()),
        }
    }

    /// Makes the directory, and tries whether a file can be made in it.
    ///
    /// # Errors
    /// When that is not so.
    pub fn prepare(&self) -> Result<(), AppError> {
        let directory = match self {
            Self::Directory(directory) => {
                std::fs::create_dir_all(directory).map_err(failed(directory))?;
                directory
            }
            Self::Page(path) | Self::Json(path) => parent(path),
        };
        let tried = tempfile::Builder::new()
            .prefix(".drill-")
            .tempfile_in(directory);
        tried.map(drop).map_err(failed(directory))
    }

    /// Writes the report of one drill; each file is there whole or not at all. Says where.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, view: &DrillView) -> Result<Vec<PathBuf>, AppError> {
        match self {
            Self::Page(path) => write(path, &view.page()?).map(|()| vec![path.clone()]),
            Self::Json(path) => write(path, &json(view)?).map(|()| vec![path.clone()]),
            Self::Directory(directory) => {
                let name = format!("drill-{}-{}", file_name(&view.source), view.run_id);
                let page = directory.join(format!("{name}.html"));
                let data = directory.join(format!("{name}.json"));
                write(&page, &view.page()?)?;
                write(&data, &json(view)?)?;
                Ok(vec![page, data])
            }
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> AppError {
    let operation = format!("write report {}", path.display());
    move |source| AppError::File { operation, source }
}

fn json(view: &DrillView) -> Result<String, AppError> {
    let text = serde_json::to_string_pretty(view);
    let text = text.map_err(|e| failed(Path::new("as JSON"))(e.into()))?;
    Ok(text + "\n")
}

fn write(path: &Path, text: &str) -> Result<(), AppError> {
    whole_file::write(path, text, Readers::Us).map_err(failed(path))
}

/// A source may have any name; as the name of a file, all but the plainest characters are written
/// as `~` and two hex digits, as they are in the store.
fn file_name(source: &str) -> String {
    source
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            byte => format!("~{byte:02x}"),
        })
        // No file system takes longer names than 255 bytes.
        .scan(0, |length, piece| {
            *length += piece.len();
            (*length <= 180).then_some(piece)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_no_paths() {
        for (source, expected) in [("shop", "shop"), ("../up", "~2e~2e~2fup"), ("a b", "a~20b")] {
            assert_eq!(file_name(source), expected);
        }
        assert_eq!(file_name(&"ä".repeat(100)).len(), 180);
    }

    #[test]
    fn extensions_say_what_is_meant() {
        for (path, expected) in [
            ("/x/a.html", ReportPath::Page("/x/a.html".into())),
            ("/x/a.json", ReportPath::Json("/x/a.json".into())),
            ("/x", ReportPath::Directory("/x".into())),
            ("/x.d", ReportPath::Directory("/x.d".into())),
        ] {
            assert_eq!(ReportPath::new(Path::new(path)), expected);
        }
    }
}

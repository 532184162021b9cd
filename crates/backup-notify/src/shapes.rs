//! The forms of JSON that services take. In each, somebody else's text stays text: no name calls a
//! whole channel or hides a link.

use backup_core::notifier::{Notice, Tone};
use backup_core::text::Line;
use serde_json::{Map, Value, json};

use crate::text::{colour, colour_number, cut};

/// The version of [`Shape::Generic`].
const VERSION: u32 = 1;

/// Whose form it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Our own, for programs.
    Generic,
    /// An incoming webhook of Slack.
    Slack,
    /// A webhook of a Discord channel.
    Discord,
    /// An incoming webhook of Mattermost.
    Mattermost,
    /// A workflow of Microsoft Teams that takes an adaptive card.
    Teams,
}

impl Shape {
    /// The notice in that form.
    #[must_use]
    pub fn body(self, notice: &Notice) -> Value {
        match self {
            Self::Generic => generic(notice),
            Self::Slack => slack(notice),
            Self::Discord => discord(notice),
            Self::Mattermost => mattermost(notice),
            Self::Teams => teams(notice),
        }
    }
}

fn generic(notice: &Notice) -> Value {
    let facts = notice.facts.iter();
    let facts: Map<_, _> = facts
        .map(|fact| (fact.name.to_owned(), fact.value.clone()))
        .collect();
    json!({
        "version": VERSION,
        "event": notice.event,
        "severity": match notice.tone {
            Tone::Good => "ok",
            Tone::Neutral => "info",
            Tone::Warning => "warning",
            Tone::Bad => "critical",
        },
        "operation": notice.operation,
        "source": notice.source,
        "at": notice.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "host": notice.host,
        "title": notice.title,
        "remarks": notice.remarks,
        "error": notice.error,
        "hint": notice.hint,
        "facts": facts,
    })
}

/// What stands above the facts.
fn paragraphs(notice: &Notice) -> Vec<(&'static str, &Line)> {
    let remarks = notice.remarks.iter().map(|remark| ("", remark));
    let error = notice.error.iter().map(|error| ("Error: ", error));
    let hint = notice.hint.iter().map(|hint| ("What to do: ", hint));
    remarks.chain(error).chain(hint).collect()
}

fn above(notice: &Notice, escape: impl Fn(&str) -> String) -> String {
    let paragraphs = paragraphs(notice).into_iter();
    let lines: Vec<_> = paragraphs
        .map(|(label, line)| format!("{label}{}", escape(line.as_str())))
        .collect();
    lines.join("\n")
}

/// The three characters that Slack takes for its own; without `<` there is no mention.
fn slack_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn slack(notice: &Notice) -> Value {
    let plain = |text: &str, limit| json!({ "type": "plain_text", "text": cut(text, limit), "emoji": false });
    let title = notice.title.as_str();
    let mut blocks = vec![json!({ "type": "header", "text": plain(title, 150) })];
    let above = above(notice, str::to_owned);
    if !above.is_empty() {
        blocks.push(json!({ "type": "section", "text": plain(&above, 3000) }));
    }
    // A section has ten fields at most.
    for facts in notice.facts.chunks(10) {
        let fields = facts
            .iter()
            .map(|fact| plain(&format!("{}\n{}", fact.label, fact.text), 2000));
        blocks.push(json!({ "type": "section", "fields": fields.collect::<Vec<_>>() }));
    }
    json!({
        "text": slack_text(title),
        "attachments": [{ "color": colour(notice.tone), "blocks": blocks }],
    })
}

/// Every sign that makes something of Markdown is a sign again.
fn markdown_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !",.:;'/%=".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn discord(notice: &Notice) -> Value {
    // All texts of a card together have 6000 characters at most.
    let facts = notice.facts.iter().take(25);
    let fields = facts.map(|fact| {
        let value = match fact.text.as_str() {
            "" => "-".to_owned(),
            text => markdown_text(text),
        };
        json!({ "name": fact.label, "value": cut(&value, 140), "inline": true })
    });
    json!({
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            "title": cut(&markdown_text(notice.title.as_str()), 250),
            "description": cut(&above(notice, markdown_text), 1500),
            "color": colour_number(notice.tone),
            "fields": fields.collect::<Vec<_>>(),
            "timestamp": notice.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        }],
    })
}

/// Between backquotes, where neither Markdown nor a mention counts.
fn quoted(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => format!("`{}`", text.replace('`', "'")),
    }
}

fn mattermost(notice: &Notice) -> Value {
    let fields = notice.facts.iter().map(
        |fact| json!({ "short": true, "title": fact.label, "value": quoted(fact.text.as_str()) }),
    );
    let title = quoted(notice.title.as_str());
    json!({
        "attachments": [{
            "fallback": title,
            "color": colour(notice.tone),
            "pretext": title,
            "text": above(notice, quoted),
            "fields": fields.collect::<Vec<_>>(),
        }],
    })
}

fn teams(notice: &Notice) -> Value {
    let run = |text: &str| json!({ "type": "TextRun", "text": text });
    let colour = match notice.tone {
        Tone::Good => "good",
        Tone::Neutral => "default",
        Tone::Warning => "warning",
        Tone::Bad => "attention",
    };
    let mut body = vec![json!({
        "type": "RichTextBlock",
        "inlines": [{
            "type": "TextRun",
            "text": notice.title,
            "size": "large",
            "weight": "bolder",
            "color": colour,
        }],
    })];
    for (label, line) in paragraphs(notice) {
        let text = format!("{label}{line}");
        body.push(json!({ "type": "RichTextBlock", "inlines": [run(&text)] }));
    }
    let facts = notice.facts.iter();
    let facts = facts
        .map(|fact| json!({ "title": fact.label, "value": markdown_text(fact.text.as_str()) }));
    body.push(json!({ "type": "FactSet", "facts": facts.collect::<Vec<_>>() }));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{HOSTILE, failure};

    #[test]
    fn programs_get_values() {
        let body = Shape::Generic.body(&failure("shop"));
        assert_eq!(body["event"], "failure");
        assert_eq!(body["severity"], "critical");
        assert_eq!(body["operation"], "backup");
        assert_eq!(body["source"], "shop");
        assert_eq!(body["at"], "2024-10-04T00:00:00Z");
        assert_eq!(body["facts"]["duration_seconds"], 1.5);
        assert_eq!(body["error"], "dump shop: connection refused");
        // A name is what it is.
        assert_eq!(Shape::Generic.body(&failure(HOSTILE))["source"], HOSTILE);
    }

    #[test]
    fn chats_get_their_own_form() {
        let notice = failure("shop");
        let body = Shape::Slack.body(&notice);
        assert_eq!(body["text"], "Backup of shop failed");
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["color"], "#b42318");
        assert_eq!(attachment["blocks"][0]["text"]["type"], "plain_text");
        let fields = &attachment["blocks"][2]["fields"];
        assert_eq!(fields[1]["text"], "Duration\n1.5 s");
        let body = Shape::Discord.body(&notice);
        assert_eq!(body["embeds"][0]["color"], 0x00b4_2318);
        assert_eq!(body["embeds"][0]["fields"][0]["value"], "shop");
        let body = Shape::Mattermost.body(&notice);
        assert_eq!(body["attachments"][0]["pretext"], "`Backup of shop failed`");
        let body = Shape::Teams.body(&notice);
        let card = &body["attachments"][0]["content"];
        assert_eq!(card["type"], "AdaptiveCard");
        assert_eq!(card["body"][0]["inlines"][0]["color"], "attention");
    }

    #[test]
    fn a_name_calls_nobody_and_links_nowhere() {
        let notice = failure(HOSTILE);
        let slack = Shape::Slack.body(&notice);
        let text = slack["text"].as_str().unwrap();
        assert!(text.contains("&lt;img") && !text.contains('<'), "{text}");
        let discord = Shape::Discord.body(&notice);
        assert_eq!(discord["allowed_mentions"]["parse"], json!([]));
        let title = discord["embeds"][0]["title"].as_str().unwrap();
        assert!(title.contains("\\[a\\]\\(b\\)"), "{title}");
        let mattermost = Shape::Mattermost.body(&notice);
        let title = mattermost["attachments"][0]["pretext"].as_str().unwrap();
        assert_eq!(title.matches('`').count(), 2, "{title}");
        for shape in [
            Shape::Slack,
            Shape::Discord,
            Shape::Mattermost,
            Shape::Teams,
        ] {
            let body = shape.body(&notice).to_string();
            assert!(
                !body.contains('\u{202e}') && !body.contains("\\r\\n"),
                "{body}"
            );
        }
    }

    #[test]
    fn limits_of_the_services_are_kept() {
        let mut notice = failure("shop");
        let fact = notice.facts[0].clone();
        notice.facts = vec![fact; 60];
        notice.title = "x".repeat(5000).into();
        notice.error = Some("y".repeat(9000).into());
        let slack = Shape::Slack.body(&notice);
        let blocks = slack["attachments"][0]["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), 2 + 6);
        assert!(blocks[0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
        assert!(blocks[1]["text"]["text"].as_str().unwrap().chars().count() <= 3000);
        let discord = Shape::Discord.body(&notice);
        assert_eq!(discord["embeds"][0]["fields"].as_array().unwrap().len(), 25);
        assert!(
            discord["embeds"][0]["title"]
                .as_str()
                .unwrap()
                .chars()
                .count()
                <= 256
        );
    }
}

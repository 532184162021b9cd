use std::sync::Arc;
use std::time::Duration;

use backup_app::Role;
use backup_app::access::Principal;

use super::*;
use crate::pages::words::Words;

const CHAT: i64 = 12;

/// What a test says is there.
struct Fake {
    sources: Option<Vec<SourceLine>>,
    backups: Vec<BackupLine>,
    jobs: Vec<JobView>,
}

impl Fake {
    fn new(sources: &[&str], backups: usize) -> Self {
        let sources = sources.iter().map(|name| SourceLine {
            name: (*name).to_owned(),
            status: "ok",
            backups,
            latest: Some(at(0)),
        });
        let backups = (0..backups).map(|index| BackupLine {
            id: format!("20260205T030000Z-{index:08x}"),
            at: at(index),
            bytes: 1_300_000,
            is_good: index != 1,
        });
        Self {
            sources: Some(sources.collect()),
            backups: backups.collect(),
            jobs: Vec::new(),
        }
    }
}

fn at(days_ago: usize) -> DateTime<Utc> {
    let now: DateTime<Utc> = "2026-02-05T12:00:00Z".parse().unwrap();
    now - TimeDelta::days(i64::try_from(days_ago).unwrap()) - TimeDelta::hours(2)
}

impl Knows for Fake {
    fn now(&self) -> DateTime<Utc> {
        "2026-02-05T12:00:00Z".parse().unwrap()
    }

    fn sources(&self, caller: &Caller) -> Option<Vec<SourceLine>> {
        let mut sources = self.sources.clone()?;
        sources.retain(|source| caller.0.sees(Some(&source.name)));
        Some(sources)
    }

    fn backups(&self, caller: &Caller, source: &str) -> Vec<BackupLine> {
        let sees = caller.0.sees(Some(source));
        self.backups.iter().filter(|_| sees).cloned().collect()
    }

    fn jobs(&self, _: &Caller) -> Vec<JobView> {
        self.jobs.clone()
    }

    fn zone_of(&self, _: &str) -> Tz {
        Tz::UTC
    }

    fn lasts(&self) -> TimeDelta {
        TimeDelta::hours(24)
    }
}

fn person(role: Role, sources: &[&str], language: &str) -> Person {
    Person {
        chat: CHAT,
        caller: Caller(Arc::new(Principal {
            name: format!("telegram:{CHAT}"),
            role,
            sources: sources.iter().map(|&name| name.to_owned()).collect(),
        })),
        w: Words::accepted(language),
    }
}

fn job(state: &'static str) -> JobView {
    JobView {
        id: "20260205T120000Z-0000beef".to_owned(),
        operation: "restore".to_owned(),
        source: Some("shop".to_owned()),
        backup: Some("20260205T030000Z-00000000".to_owned()),
        by: format!("telegram:{CHAT}"),
        slot: None,
        state,
        phase: Some("compare with the dump".to_owned()),
        bytes_done: 500,
        bytes_total: Some(1000),
        queued_at: String::new(),
        started_at: None,
        finished_at: None,
        runs: Vec::new(),
        error: None,
        sandbox: None,
    }
}

/// Somebody and the machine, which answers him.
struct Talk {
    machine: Machine,
    person: Person,
    knows: Fake,
    now: Instant,
}

impl Talk {
    fn new(person: Person, knows: Fake) -> Self {
        Self {
            machine: Machine::default(),
            person,
            knows,
            now: Instant::now(),
        }
    }

    fn says(&mut self, text: &str) -> Vec<Do> {
        let input = Input::Text(text.to_owned());
        self.machine
            .receive(&self.person, input, &self.knows, self.now)
    }

    fn presses(&mut self, message: i64, data: &str) -> Vec<Do> {
        let input = Input::Press {
            callback: "callback".to_owned(),
            message,
            data: data.to_owned(),
        };
        self.machine
            .receive(&self.person, input, &self.knows, self.now)
    }

    /// What is said to `/start`, below which message 1 stands.
    fn starts(&mut self) -> Say {
        let todo = self.says("/start");
        let [Do::Say { say, card }] = todo.as_slice() else {
            panic!("{todo:?}");
        };
        if let Some(card) = card {
            self.machine.bind(card, 1);
        }
        say.clone()
    }

    /// What is said when the button with these words is pressed in message 1.
    fn goes_on(&mut self, said: &Say, words: &str) -> Say {
        let todo = self.presses(1, &data(said, words));
        let [
            Do::Answer { text: None, .. },
            Do::Change {
                message: 1,
                say,
                card,
            },
        ] = todo.as_slice()
        else {
            panic!("{todo:?}");
        };
        if let Some(card) = card {
            self.machine.bind(card, 1);
        }
        say.clone()
    }
}

fn labels(say: &Say) -> Vec<&str> {
    let all = say.buttons.iter().flatten();
    all.map(|button| button.text.as_str()).collect()
}

fn data(say: &Say, words: &str) -> String {
    let mut all = say.buttons.iter().flatten();
    let found = all.find(|button| button.text.contains(words));
    let found = found.unwrap_or_else(|| panic!("{words}: {say:?}"));
    assert!(found.callback_data.len() <= 64);
    found.callback_data.clone()
}

#[test]
fn from_start_to_yes_and_twice_pressed_is_one_order() {
    let olga = person(Role::Restorer, &["shop"], "en");
    let mut talk = Talk::new(olga, Fake::new(&["shop", "secret"], 2));
    let said = talk.starts();
    assert_eq!(said.text, "Choose a source");
    assert_eq!(labels(&said), ["✓ shop · 2 hours ago", "Cancel"]);
    let said = talk.goes_on(&said, "shop");
    let shown: Vec<_> = labels(&said)
        .iter()
        .map(|text| text.replace('\u{a0}', " "))
        .collect();
    assert_eq!(
        shown,
        [
            "5 Feb 2026, 10:00 UTC · 1.2 MiB",
            "4 Feb 2026, 10:00 UTC · 1.2 MiB · ✗ damaged",
            "↩ Sources",
            "Cancel"
        ]
    );
    let said = talk.goes_on(&said, "5\u{a0}Feb");
    let text = said.text.replace('\u{a0}', " ");
    assert!(
        text.contains("Backup: 5 Feb 2026, 10:00 UTC (2 hours ago)"),
        "{text}"
    );
    assert!(text.ends_with("It is dropped in 24 hours."), "{text}");
    let yes = data(&said, "YES");
    // In another message, and as somebody else, it is nothing.
    let expired = |todo: &[Do]| matches!(todo, [Do::Answer { text: Some(_), .. }]);
    assert!(expired(&talk.presses(2, &yes)));
    let own = talk.person.clone();
    talk.person.chat = 13;
    assert!(expired(&talk.presses(1, &yes)));
    talk.person = own;
    let todo = talk.presses(1, &yes);
    let [_, Do::Change { .. }, Do::Order { source, backup, .. }] = todo.as_slice() else {
        panic!("{todo:?}");
    };
    assert_eq!(
        (source.as_str(), backup.as_str()),
        ("shop", "20260205T030000Z-00000000")
    );
    // Once more, and its neighbour.
    assert!(expired(&talk.presses(1, &yes)));
    let cancel = data(&said, "Cancel");
    assert!(expired(&talk.presses(1, &cancel)));
}

#[test]
fn a_button_is_not_good_for_ever_and_not_after_a_restart() {
    let olga = person(Role::Restorer, &["*"], "en");
    let mut talk = Talk::new(olga, Fake::new(&["shop"], 1));
    let said = talk.starts();
    let data = data(&said, "shop");
    talk.now += Duration::from_mins(10);
    let expired = [Do::Answer {
        callback: "callback".to_owned(),
        text: Some("This button is used or expired. Send /start."),
    }];
    assert_eq!(talk.presses(1, &data), expired);
    let said = talk.starts();
    let fresh = self::data(&said, "shop");
    talk.machine = Machine::default();
    assert_eq!(talk.presses(1, &fresh), expired);
    for nonsense in ["", ":", "x:0", "a:b:c", "🔥", &"9".repeat(4096)] {
        assert_eq!(talk.presses(1, nonsense), expired, "{nonsense}");
    }
}

#[test]
fn who_may_only_look_gets_no_button_that_restores() {
    let viewer = person(Role::Viewer, &["*"], "en");
    let mut talk = Talk::new(viewer, Fake::new(&["shop"], 2));
    let said = talk.starts();
    let said = talk.goes_on(&said, "shop");
    assert_eq!(labels(&said), ["↩ Sources", "Cancel"]);
    assert!(
        said.text.replace('\u{a0}', " ").contains("5 Feb 2026"),
        "{said:?}"
    );
    let nobody = person(Role::Admin, &["other"], "en");
    let mut talk = Talk::new(nobody, Fake::new(&["shop"], 2));
    let said = talk.starts();
    assert_eq!(said.text, "There is no backup that you may see.");
    assert!(said.buttons.is_empty());
}

#[test]
fn long_lists_have_pages_that_lead_to_each_other() {
    let olga = person(Role::Restorer, &["*"], "en");
    let names: Vec<_> = (0..20).map(|number| format!("db-{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut talk = Talk::new(olga, Fake::new(&names, 17));
    let said = talk.starts();
    assert_eq!(said.buttons.len(), OFFERED + 2);
    assert_eq!(labels(&said)[OFFERED], "▶ 2/3");
    let said = talk.goes_on(&said, "▶ 2/3");
    assert_eq!(labels(&said)[0], "✓ db-08 · 2 hours ago");
    assert_eq!(&labels(&said)[OFFERED..], ["◀", "▶ 3/3", "Cancel"]);
    let said = talk.goes_on(&said, "▶ 3/3");
    assert_eq!(
        &labels(&said)[3..],
        ["✓ db-19 · 2 hours ago", "◀", "Cancel"]
    );
    let said = talk.goes_on(&said, "db-19");
    let said = talk.goes_on(&said, "▶ 2/3");
    let said = talk.goes_on(&said, "▶ 3/3");
    assert_eq!(said.buttons.len(), 1 + 2);
    // Meanwhile most of them are gone.
    let said = talk.goes_on(&said, "◀");
    talk.knows.backups.truncate(2);
    let said = talk.goes_on(&said, "▶ 3/3");
    assert_eq!(said.buttons.len(), 2 + 1);
}

#[test]
fn hostile_names_stay_names() {
    let evil = "<b>\u{202e}/cancel\n@all https://evil.example".to_owned();
    let long = "x".repeat(5000);
    let olga = person(Role::Restorer, &["*"], "en");
    let mut talk = Talk::new(olga, Fake::new(&[&evil, &long], 1));
    let said = talk.starts();
    for label in labels(&said) {
        assert!(label.chars().count() < 100, "{label}");
        assert!(!label.contains(['\n', '\u{202e}']), "{label}");
    }
    let said = talk.goes_on(&said, "<b>");
    assert!(
        said.text.starts_with("<b>\\u{202e}/cancel\\n@all"),
        "{said:?}"
    );
    let said = talk.goes_on(&said, "Feb");
    assert!(
        said.text.contains("Source: <b>\\u{202e}/cancel\\n@all"),
        "{said:?}"
    );
    let todo = talk.presses(1, &data(&said, "YES"));
    // What is ordered is the name itself.
    let ordered = todo
        .iter()
        .any(|one| matches!(one, Do::Order { source, .. } if *source == evil));
    assert!(ordered, "{todo:?}");
}

#[test]
fn commands_are_understood_in_both_languages() {
    for (language, idle, unclear) in [
        (
            "en",
            "Nothing that you asked for is under way.",
            "I do not understand",
        ),
        (
            "ru",
            "Из того, что вы просили, ничего не выполняется.",
            "Не понимаю",
        ),
    ] {
        let who = person(Role::Restorer, &["*"], language);
        let mut talk = Talk::new(who, Fake::new(&["shop"], 1));
        let said = |todo: Vec<Do>| match todo.as_slice() {
            [Do::Say { say, card: None }] => say.text.clone(),
            todo => panic!("{todo:?}"),
        };
        assert!(said(talk.says("/help")).contains("/status"));
        assert!(said(talk.says(" /help@some_bot now")).contains("/status"));
        assert_eq!(said(talk.says("/cancel")), idle);
        let status = said(talk.says("/status"));
        assert!(
            status.starts_with(idle) && status.contains("✓ shop — 2 "),
            "{status}"
        );
        for text in ["", "hello", "/drop", "/START", "start"] {
            assert!(said(talk.says(text)).contains(unclear), "{text}");
        }
        talk.knows.sources = None;
        assert!(said(talk.says("/start")).contains("/start"));
    }
}

#[test]
fn what_is_under_way_is_told_and_stopped_and_its_buttons_with_it() {
    let olga = person(Role::Restorer, &["*"], "en");
    let mut talk = Talk::new(olga, Fake::new(&["shop"], 1));
    talk.knows.jobs = vec![job("running"), job("success")];
    let todo = talk.says("/status");
    let [Do::Say { say, .. }] = todo.as_slice() else {
        panic!("{todo:?}");
    };
    let text = say.text.replace('\u{a0}', " ");
    let line = "Under way:\n▶ restore shop 50% (500 B of 1000 B)\n";
    assert!(text.starts_with(line), "{text}");
    let said = talk.starts();
    let todo = talk.says("/cancel");
    assert_eq!(
        todo,
        [
            Do::Stop {
                job: job("running").id
            },
            Do::Say {
                say: Say::text("It is being stopped."),
                card: None
            }
        ]
    );
    let todo = talk.presses(1, &data(&said, "shop"));
    assert!(matches!(
        todo.as_slice(),
        [Do::Answer { text: Some(_), .. }]
    ));
}

/// Whatever is written or pressed, only these things are ever done.
#[test]
fn nothing_of_it_takes_anything_away() {
    let admin = person(Role::Admin, &["*"], "en");
    let mut talk = Talk::new(admin, Fake::new(&["shop"], 1));
    let words = [
        "/start",
        "/drop",
        "/swap",
        "/delete",
        "/export",
        "/prune",
        "/unpin",
        "/backup",
        "YES",
        "/restore shop",
    ];
    for text in words {
        for one in talk.says(text) {
            assert!(matches!(one, Do::Say { .. }), "{text}: {one:?}");
        }
    }
}

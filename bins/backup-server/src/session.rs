//! Who is signed in on the pages. It is kept in memory alone: after a restart people sign in again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use backup_app::HttpConfig;
use backup_app::access::Principal;
use sha2::{Digest as _, Sha256};

/// How long somebody stays signed in.
const LASTS: Duration = Duration::from_hours(12);

/// How many are remembered, and how many of them of one person. Then the oldest ends.
const REMEMBERED: usize = 1000;
const PER_PERSON: usize = 20;

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) who: Arc<Principal>,
    /// What every form of his says again, and no other site knows.
    pub(crate) form_key: String,
    ends: Instant,
}

impl Session {
    /// Whether a form comes from one of his own pages. How long that takes says nothing.
    pub(crate) fn owns(&self, form_key: &str) -> bool {
        hash(&self.form_key) == hash(form_key)
    }
}

/// All who are signed in, by the hash of what their cookies say.
#[derive(Debug)]
pub(crate) struct Sessions {
    known: Mutex<HashMap<[u8; 32], Session>>,
    secure: bool,
}

impl Sessions {
    /// Nobody yet. Cookies cross nothing in the clear but a loopback interface.
    pub(crate) fn new(settings: &HttpConfig) -> Self {
        Self {
            known: Mutex::default(),
            secure: settings.tls_cert.is_some() || settings.behind_tls_proxy,
        }
    }

    /// Signs somebody in; what his browser is to remember.
    pub(crate) fn begin(&self, who: Arc<Principal>, now: Instant) -> Option<HeaderValue> {
        let id = random();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, session| session.ends > now);
        let own = known.values().filter(|session| session.who == who).count();
        if own >= PER_PERSON {
            drop_oldest(&mut known, |session| session.who == who);
        } else if known.len() >= REMEMBERED {
            drop_oldest(&mut known, |_| true);
        }
        let session = Session {
            who,
            form_key: random(),
            ends: now + LASTS,
        };
        known.insert(hash(&id), session);
        self.cookie(&id, LASTS)
    }

    /// Who sends these headers.
    pub(crate) fn find(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let id = hash(self.id(headers)?);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).filter(|session| session.ends > now).cloned()
    }

    /// Signs him out who sends these headers; what makes his browser forget.
    pub(crate) fn end(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if let Some(id) = self.id(headers) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.remove(&hash(id));
        }
        self.cookie("", Duration::ZERO)
    }

    /// Signs everybody out.
    pub(crate) fn forget(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }

    /// With this prefix, a browser takes the cookie from this very host alone, over TLS.
    fn name(&self) -> &'static str {
        if self.secure {
            "__Host-session"
        } else {
            "session"
        }
    }

    fn cookie(&self, id: &str, lasts: Duration) -> Option<HeaderValue> {
        let (name, seconds) = (self.name(), lasts.as_secs());
        let secure = if self.secure { "; Secure" } else { "" };
        let text =
            format!("{name}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&text).ok()
    }

    fn id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let said = headers.get_all(header::COOKIE).iter();
        let cookies = said
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        let mut own = cookies.filter(|(name, _)| *name == self.name());
        own.next().map(|(_, id)| id)
    }
}

fn drop_oldest(known: &mut HashMap<[u8; 32], Session>, which: impl Fn(&Session) -> bool) {
    let of_them = known.iter().filter(|(_, session)| which(session));
    let oldest = of_them.min_by_key(|(_, session)| session.ends);
    if let Some(id) = oldest.map(|(id, _)| *id) {
        known.remove(&id);
    }
}

/// Whether a request that changes something comes from one of our own pages. A browser says so;
/// whoever says nothing is refused.
pub(crate) fn is_from_here(headers: &HeaderMap) -> bool {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = said("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = said("origin").and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, host)| said("host") == Some(host))
}

/// A text of 256 random bits.
fn random() -> String {
    let bytes = rand::random::<[u8; 32]>();
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use backup_app::Role;

    use super::*;

    fn person(name: &str) -> Arc<Principal> {
        Arc::new(Principal {
            name: name.to_owned(),
            role: Role::Viewer,
            sources: vec!["*".to_owned()],
        })
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        [(name.parse().unwrap(), value)].into_iter().collect()
    }

    /// What a browser would send back.
    fn sent(cookie: &HeaderValue) -> HeaderMap {
        let said = cookie.to_str().unwrap().split_once(';').unwrap().0;
        headers("cookie", &format!("theme=dark; {said}"))
    }

    #[test]
    fn a_session_lasts_until_it_ends() {
        let sessions = Sessions::new(&HttpConfig::default());
        let now = Instant::now();
        let cookie = sessions.begin(person("anna"), now).unwrap();
        let found = sessions.find(&sent(&cookie), now).unwrap();
        assert_eq!(found.who.name, "anna");
        assert!(found.owns(&found.form_key.clone()));
        assert!(!found.owns("") && !found.owns(&found.form_key[1..]));
        assert!(sessions.find(&sent(&cookie), now + LASTS).is_none());
        assert!(sessions.find(&headers("cookie", "session="), now).is_none());
        let forget = sessions.end(&sent(&cookie)).unwrap();
        assert!(forget.to_str().unwrap().contains("Max-Age=0"));
        assert!(sessions.find(&sent(&cookie), now).is_none());
    }

    #[test]
    fn what_a_cookie_says_is_kept_nowhere() {
        let sessions = Sessions::new(&HttpConfig::default());
        let cookie = sessions.begin(person("anna"), Instant::now()).unwrap();
        let id = cookie.to_str().unwrap()["session=".len()..][..64].to_owned();
        assert!(!format!("{sessions:?}").contains(&id));
        let text = cookie.to_str().unwrap();
        assert!(text.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"));
        let behind = Sessions::new(&HttpConfig {
            behind_tls_proxy: true,
            ..HttpConfig::default()
        });
        let cookie = behind.begin(person("anna"), Instant::now()).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-session=") && text.ends_with("; Secure"));
    }

    #[test]
    fn how_many_are_remembered_is_bounded() {
        let sessions = Sessions::new(&HttpConfig::default());
        let now = Instant::now();
        let first = sessions.begin(person("other"), now).unwrap();
        let mut own = Vec::new();
        for second in 0..=PER_PERSON as u64 {
            own.extend(sessions.begin(person("anna"), now + Duration::from_secs(second)));
        }
        let is_known = |cookie| sessions.find(&sent(cookie), now).is_some();
        assert!(!is_known(&own[0]) && is_known(&own[1]) && is_known(&first));
        for number in 0..REMEMBERED {
            let late = now + Duration::from_mins(1);
            sessions.begin(person(&number.to_string()), late).unwrap();
        }
        assert_eq!(sessions.known.lock().unwrap().len(), REMEMBERED);
        assert!(!is_known(&first));
    }

    #[test]
    fn only_our_own_pages_may_change_something() {
        for (said, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "https://a:1"), ("host", "a:1")], true),
            (&[("origin", "https://b"), ("host", "a")], false),
            (&[("origin", "null"), ("host", "null")], false),
            (&[("host", "a")], false),
            (&[], false),
        ] {
            let pairs = said
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            assert_eq!(is_from_here(&pairs.collect()), expected, "{said:?}");
        }
    }
}

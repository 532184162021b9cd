//! What real servers do rarely and tests need often.

mod gcs;
mod marks;
mod uploads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_core::body::{BodyStream, counted};
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{PutOptions, Store, StoreKey};
use backup_store::{Limits, StoreConfig, StoreOptions, open};
use backup_testing::{FakeBucket, HttpFault, HttpRequest, bodies, error_document};
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

const PART: u64 = 1 << 20;

/// Less than the limits that nothing shrinks, and more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(45);

/// Every size shrunk.
fn small() -> Limits {
    Limits {
        part_bytes: PART,
        max_part_bytes: PART,
        upload_memory: 4 * PART,
        read_bytes: 100_000,
        first_backoff: Duration::from_millis(5),
        ..Limits::default()
    }
}

/// Every time too, so that what takes minutes takes seconds: where one of them is to run out.
fn impatient() -> Limits {
    let millis = Duration::from_millis;
    Limits {
        connect_timeout: millis(1000),
        read_timeout: millis(1000),
        request_timeout: millis(2000),
        retry_timeout: millis(4000),
        complete_timeout: millis(8000),
        abort_timeout: millis(2500),
        ..small()
    }
}

fn store(server: &FakeBucket, limits: Limits) -> Arc<dyn Store> {
    let options = StoreOptions {
        endpoint: Some(server.endpoint.clone()),
        access_key_id: Some("id".into()),
        secret_access_key: Some("canary".into()),
        ..StoreOptions::default()
    };
    let mut config = StoreConfig::parse("s3://bucket", &options).expect("a bucket");
    config.limits = limits;
    open(&config).expect("opening connects to nothing")
}

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).expect("a valid key")
}

async fn put(store: &dyn Store, body: BodyStream) -> Result<u64, PortError> {
    let (name, options) = (key("object"), PutOptions::default());
    store
        .put(&name, body, &options, &CancellationToken::new())
        .await
}

fn content() -> Bytes {
    bodies::random(3_500_000, 1)
}

fn body() -> BodyStream {
    bodies::chunked(content(), 100_000)
}

async fn assert_stored(server: &FakeBucket, store: &dyn Store) {
    let written = put(store, body()).await;
    assert!(matches!(written, Ok(3_500_000)), "{written:?}");
    assert!(
        server
            .object("object")
            .is_some_and(|found| found == content())
    );
    assert_eq!(server.open_uploads(), 0);
}

/// The put fails with this kind, by itself, and leaves nothing.
async fn assert_refused(server: &FakeBucket, store: &dyn Store, kind: ErrorKind) -> PortError {
    let put = tokio::time::timeout(PATIENCE, put(store, body())).await;
    let error = put.expect("it has an end").expect_err("the put fails");
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(server.object("object"), None);
    assert_eq!(server.open_uploads(), 0, "{error:?}");
    assert!(!format!("{error:?}").contains("canary"));
    error
}

#[tokio::test]
async fn a_server_that_asks_to_slow_down_is_asked_again() {
    let server = FakeBucket::start().await;
    let answer = HttpFault::Answer(503, error_document("SlowDown"));
    server.fault(HttpRequest::is_part, 1, 5, answer);
    assert_stored(&server, &*store(&server, small())).await;
}

#[tokio::test]
async fn a_server_that_never_recovers_ends_the_upload_within_the_budget() {
    let server = FakeBucket::start().await;
    let answer = HttpFault::Answer(503, error_document("SlowDown"));
    server.fault(HttpRequest::is_part, 1, usize::MAX, answer);
    let error = assert_refused(
        &server,
        &*store(&server, impatient()),
        ErrorKind::Unavailable,
    )
    .await;
    assert_eq!(error.to_string(), "upload part of object");
}

#[tokio::test]
async fn parts_are_sent_again_after_a_reset() {
    let server = FakeBucket::start().await;
    server.fault(HttpRequest::is_part, 1, 2, HttpFault::ResetAfter(300_000));
    assert_stored(&server, &*store(&server, small())).await;
}

#[tokio::test]
async fn an_error_in_a_200_is_an_error() {
    let server = FakeBucket::start().await;
    let again = HttpFault::Answer(200, error_document("InternalError"));
    server.fault(HttpRequest::is_complete, 0, 1, again);
    assert_stored(&server, &*store(&server, impatient())).await;

    let server = FakeBucket::start().await;
    let never = HttpFault::Answer(200, error_document("AccessDenied"));
    server.fault(HttpRequest::is_complete, 0, usize::MAX, never);
    assert_refused(
        &server,
        &*store(&server, impatient()),
        ErrorKind::Unavailable,
    )
    .await;
}

#[tokio::test]
async fn a_lost_answer_to_complete_is_found_out() {
    let server = FakeBucket::start().await;
    server.fault(HttpRequest::is_complete, 0, 1, HttpFault::LoseAnswer);
    assert_stored(&server, &*store(&server, small())).await;
    // An older object of the same length is no proof.
    let old = vec![0; content().len()];
    server.set_object("object", &old);
    let refused = HttpFault::Answer(404, error_document("NoSuchUpload"));
    server.fault(HttpRequest::is_complete, 0, usize::MAX, refused);
    put(&*store(&server, small()), body())
        .await
        .expect_err("the put fails");
    assert_eq!(server.object("object"), Some(old));
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn a_silent_server_ends_the_upload() {
    for request in [HttpRequest::is_part, HttpRequest::is_complete] {
        let server = FakeBucket::start().await;
        server.fault(request, 0, usize::MAX, HttpFault::Stall);
        assert_refused(&server, &*store(&server, impatient()), ErrorKind::Timeout).await;
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_removed_is_reported() {
    let server = FakeBucket::start().await;
    server.fault(
        HttpRequest::is_abort,
        0,
        usize::MAX,
        HttpFault::Answer(500, String::new()),
    );
    let bad = bodies::failing(content(), ErrorKind::ToolFailed);
    let error = put(&*store(&server, impatient()), bad)
        .await
        .expect_err("the body fails");
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(
        error.to_string().contains("could not be removed"),
        "{error}"
    );
    assert!(error.hint().is_some());

    let server = FakeBucket::start().await;
    server.fault(
        HttpRequest::is_abort,
        0,
        3,
        HttpFault::Answer(500, String::new()),
    );
    let bad = bodies::failing(content(), ErrorKind::ToolFailed);
    let error = put(&*store(&server, impatient()), bad)
        .await
        .expect_err("the body fails");
    assert_eq!(
        (error.to_string().as_str(), server.open_uploads()),
        ("scripted failure", 0)
    );
}

#[tokio::test]
async fn cancel_does_not_wait_for_a_silent_server() {
    let server = FakeBucket::start().await;
    server.fault(HttpRequest::is_part, 0, usize::MAX, HttpFault::Stall);
    let store = store(
        &server,
        Limits {
            part_bytes: PART,
            max_part_bytes: PART,
            ..Limits::default()
        },
    );
    let cancel = CancellationToken::new();
    let (name, options) = (key("object"), PutOptions::default());
    let cancelling = async {
        in_the_midst(&server, 0).await;
        cancel.cancel();
    };
    let put = store.put(&name, body(), &options, &cancel);
    let both = async { tokio::join!(put, cancelling) };
    let (outcome, ()) = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("it has an end");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(server.open_uploads(), 0);
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Waits until a part of an upload is under way, after those `before`.
async fn in_the_midst(server: &FakeBucket, before: usize) {
    let begun = async {
        while server.parts_asked() <= before {
            a_moment().await;
        }
    };
    let begun = tokio::time::timeout(PATIENCE, begun).await;
    begun.expect("an upload begins");
}

#[tokio::test]
async fn dropped_and_panicking_puts_are_aborted() {
    let server = FakeBucket::start().await;
    let store = store(&server, small());
    let dropped = put(&*store, bodies::stalling(content()));
    let begun = async {
        while server.parts_received() < 3 {
            a_moment().await;
        }
    };
    tokio::select! {
        put = dropped => panic!("it ended: {put:?}"),
        () = begun => {}
    }
    let first = server.parts_received();
    let shared = Arc::clone(&store);
    let panicking = tokio::spawn(async move { put(&*shared, bodies::panicking(content())).await });
    assert!(panicking.await.unwrap_err().is_panic());
    let aborted = async {
        while server.open_uploads() > 0 {
            a_moment().await;
        }
    };
    tokio::time::timeout(PATIENCE, aborted)
        .await
        .expect("both are aborted");
    assert!(server.parts_received() > first, "the second had begun");
}

#[tokio::test]
async fn parts_are_equal_and_their_number_is_limited() {
    let server = FakeBucket::start().await;
    let limits = Limits {
        max_parts: 4,
        ..small()
    };
    let store = store(&server, limits);
    assert_eq!(store.capacity(&PutOptions::default()), 4 * PART);
    // A part whose answer is lost is sent again, and is one part all the same.
    server.fault(HttpRequest::is_part, 1, 1, HttpFault::LoseAnswer);
    assert_stored(&server, &*store).await;
    assert!(server.parts_received() > 4);
    let part = usize::try_from(PART).unwrap();
    let lengths = [part, part, part, 3_500_000 - 3 * part];
    assert_eq!(server.parts_of("object"), lengths);

    let exact = put(&*store, bodies::generated(4 * PART, 1)).await;
    assert_eq!(exact.unwrap(), 4 * PART);
    let error = put(&*store, bodies::generated(4 * PART + 1, 1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn memory_is_bounded_over_all_uploads() {
    let server = FakeBucket::start().await;
    server.fault(HttpRequest::is_part, 0, usize::MAX, HttpFault::Stall);
    let store = store(&server, small());
    let pulled = Arc::new(AtomicU64::new(0));
    let puts = (0..6).map(|_| {
        let pulled = Arc::clone(&pulled);
        let body = counted(bodies::generated(100 * PART, 1), move |n| {
            pulled.fetch_add(n, Ordering::Relaxed);
        });
        put(&*store, body)
    });
    let all = futures::future::join_all(puts);
    let full = async {
        while pulled.load(Ordering::Relaxed) < 8 * PART {
            a_moment().await;
        }
        // Time to go on, for whatever would.
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        _ = all => panic!("no part is ever answered"),
        full = tokio::time::timeout(PATIENCE, full) => full.expect("the budget is used"),
    }
    // The shared budget, and for each upload the part it fills and the chunk behind it.
    let most = 4 * PART + 6 * (PART + (256 << 10));
    let pulled = pulled.load(Ordering::Relaxed);
    assert!(pulled <= most, "{pulled} bytes of at most {most}");
}

#[tokio::test]
async fn a_slow_reader_outlives_every_timeout() {
    let server = FakeBucket::start().await;
    server.set_object("object", &content());
    server.fault(HttpRequest::is_get, 3, 2, HttpFault::CutAnswer(50_000));
    server.fault(HttpRequest::is_get, 12, 2, HttpFault::LoseAnswer);
    server.fault(
        HttpRequest::is_get,
        20,
        2,
        HttpFault::Answer(503, error_document("SlowDown")),
    );
    server.fault(HttpRequest::is_get, 28, 1, HttpFault::Stall);
    let limits = Limits {
        retry_timeout: Duration::from_secs(2),
        ..impatient()
    };
    let store = store(&server, limits);
    let begun = Instant::now();
    let mut body = store.read(&key("object"), None).await.unwrap();
    let mut found = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.unwrap();
        found.extend_from_slice(&chunk);
        tokio::time::sleep(Duration::from_micros(chunk.len() as u64)).await;
    }
    assert!(found == content());
    let longest = limits.request_timeout.max(limits.retry_timeout);
    assert!(begun.elapsed() > longest.max(limits.read_timeout));
}

#[tokio::test]
async fn an_object_that_changes_under_its_reader_is_an_error() {
    let server = FakeBucket::start().await;
    server.set_object("object", &content());
    let store = store(&server, small());
    let mut body = store.read(&key("object"), None).await.unwrap();
    body.next().await.unwrap().unwrap();
    server.set_object("object", &bodies::random(3_500_000, 2));
    let (_, error) = bodies::drain(body).await;
    assert_eq!(
        bodies::kind_of(error.expect("an error")),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn a_lost_answer_to_create_is_not_hidden() {
    let server = FakeBucket::start().await;
    server.fault(
        |request| request.method == "PUT",
        0,
        1,
        HttpFault::LoseAnswer,
    );
    let store = store(&server, small());
    let outcome = store
        .create(&key("object"), Bytes::from_static(b"mine"))
        .await;
    // The client asks again and finds the key taken, by itself: the caller has to look.
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(server.object("object"), Some(b"mine".to_vec()));
}

#[tokio::test]
async fn answers_that_explain_themselves_are_passed_on() {
    for (status, code, kind, words) in [
        (
            403,
            "InvalidAccessKeyId",
            ErrorKind::PermissionDenied,
            "access key id",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            ErrorKind::PermissionDenied,
            "secret access key",
        ),
        (
            403,
            "RequestTimeTooSkewed",
            ErrorKind::PermissionDenied,
            "clock",
        ),
        (403, "AccessDenied", ErrorKind::PermissionDenied, "rights"),
        (
            400,
            "ExpiredToken",
            ErrorKind::PermissionDenied,
            "temporary",
        ),
        (
            404,
            "NoSuchBucket",
            ErrorKind::NotFound,
            "create the bucket",
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            ErrorKind::InvalidInput,
            "region",
        ),
    ] {
        let server = FakeBucket::start().await;
        server.fault(
            |_| true,
            0,
            usize::MAX,
            HttpFault::Answer(status, error_document(code)),
        );
        let store = store(&server, small());
        let Err(read) = store.read(&key("object"), None).await else {
            panic!("{code}: the read begins");
        };
        let outcomes = [
            (
                "small put",
                put(&*store, bodies::chunked("x", 1)).await.map(drop),
            ),
            ("large put", put(&*store, body()).await.map(drop)),
            ("create", store.create(&key("object"), Bytes::new()).await),
            ("delete", store.delete(&key("object")).await),
            ("read", Err(read)),
        ];
        for (name, outcome) in outcomes {
            if name == "delete" && kind == ErrorKind::NotFound {
                continue;
            }
            let error = outcome.expect_err(name);
            assert_eq!(error.kind(), kind, "{name}, {code}: {error:?}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(words), "{name}, {code}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let mut server = FakeBucket::start().await;
    "http://127.0.0.1:9".clone_into(&mut server.endpoint);
    let error = store(&server, impatient())
        .head(&key("object"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let source = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(source.contains("refused"), "{source}");
}

/// What a server does to writes on a condition.
type Habit = fn(&FakeBucket);

#[tokio::test]
async fn a_server_that_passes_over_conditions_is_found_out() {
    let habits: [(Habit, Option<&str>); 5] = [
        (|_| {}, None),
        (
            |server| server.passes_over("if-none-match"),
            Some("creates objects that are there already"),
        ),
        (
            |server| server.passes_over("if-match"),
            Some("replaces objects whatever their tag"),
        ),
        (
            |server| {
                let answer = HttpFault::Answer(501, error_document("NotImplemented"));
                server.fault(|request| request.has("if-match"), 0, usize::MAX, answer);
            },
            Some("does not know writing on a condition"),
        ),
        (
            |server| {
                let answer = HttpFault::Answer(412, error_document("PreconditionFailed"));
                server.fault(|request| request.has("if-match"), 0, usize::MAX, answer);
            },
            Some("does not replace an object by its tag"),
        ),
    ];
    for (habit, complaint) in habits {
        let server = FakeBucket::start().await;
        habit(&server);
        let checked = store(&server, small()).check_conditions().await;
        match (complaint, checked) {
            (None, Ok(())) => {}
            (Some(words), Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unsuitable, "{error:?}");
                assert!(error.to_string().contains(words), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.contains("If-Match")));
            }
            (complaint, checked) => panic!("{complaint:?}: {checked:?}"),
        }
        assert_eq!(server.keys(), Vec::<String>::new(), "{complaint:?}");
    }
}

#[tokio::test]
async fn lost_answers_do_not_make_a_server_look_bad() {
    for lost in 0..4 {
        let server = FakeBucket::start().await;
        server.fault(
            |request| request.method == "PUT",
            lost,
            1,
            HttpFault::LoseAnswer,
        );
        let store = store(&server, small());
        let checked = store.check_conditions().await;
        assert!(checked.is_ok(), "answer {lost} to a put: {checked:?}");
        assert_eq!(server.keys(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_server_is_tried_once() {
    let server = FakeBucket::start().await;
    let store = store(&server, small());
    store.check_conditions().await.expect("it keeps its word");
    server.passes_over("if-match");
    store
        .check_conditions()
        .await
        .expect("it is not asked again");
}

//! Asking a server for uploads that nobody finished.

use super::*;

const LISTING: &str = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload>\
    <Key>app/part</Key><UploadId>u1</UploadId><Initiated>2026-02-05T03:00:00.000Z</Initiated>\
    </Upload></ListMultipartUploadsResult>";

/// What comes of the question when the server answers it like this, once and then for good.
async fn asked(answers: &[(u16, String)]) -> Result<Vec<String>, PortError> {
    let server = FakeBucket::start().await;
    for (number, (status, body)) in answers.iter().enumerate() {
        let hits = if number + 1 < answers.len() {
            1
        } else {
            usize::MAX
        };
        let answer = HttpFault::Answer(*status, body.clone());
        server.fault(|_| true, 0, hits, answer);
    }
    let store = store(&server, small());
    let found = store.unfinished_uploads(&key("app")).await?;
    Ok(found.into_iter().map(|upload| upload.id).collect())
}

#[tokio::test]
async fn a_server_that_has_no_answer_is_asked_again() {
    let answers = [(503, error_document("SlowDown")), (200, LISTING.to_owned())];
    assert_eq!(asked(&answers).await.unwrap(), ["u1"]);
}

#[tokio::test]
async fn a_server_that_does_not_know_the_question_has_none() {
    for (status, code) in [
        (400, "NotImplemented"),
        (405, "MethodNotAllowed"),
        (501, "NotImplemented"),
    ] {
        let answer = asked(&[(status, error_document(code))]).await;
        assert_eq!(answer.unwrap(), Vec::<String>::new(), "{code}");
    }
}

/// Who takes a refusal for an answer leaves uploads there for ever, and says nothing.
#[tokio::test]
async fn a_refusal_is_no_answer() {
    for (status, code, kind) in [
        (400, "ExpiredToken", ErrorKind::InvalidInput),
        (400, "AuthorizationHeaderMalformed", ErrorKind::InvalidInput),
        (403, "AccessDenied", ErrorKind::PermissionDenied),
    ] {
        let answer = asked(&[(status, error_document(code))]).await;
        assert_eq!(answer.unwrap_err().kind(), kind, "{code}");
    }
}

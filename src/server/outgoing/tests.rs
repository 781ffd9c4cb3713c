use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::pki::{Ca, Issued, Spec};
use crate::types::secret::SecretString;

/// Answers every request alike, and says what it was asked.
async fn site(tls: Option<Issued>, answer: &'static str) -> (u16, AbortOnDropHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.map(|issued| issued.acceptor());
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let asked = match &acceptor {
            None => serve(tcp, answer).await,
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(stream) => serve(stream, answer).await,
                Err(_) => String::new(),
            },
        };
        vec![asked]
    });
    (port, AbortOnDropHandle::new(serving))
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut asked = Vec::new();
    let mut chunk = [0; 1024];
    let whole = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_whitespace().next().unwrap().parse().unwrap());
        (body.len() >= length).then_some(())
    };
    while whole(&String::from_utf8_lossy(&asked)).is_none() {
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => asked.extend_from_slice(&chunk[..read]),
            _ => break,
        }
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(asked).unwrap()
}

fn requests(port: u16) -> OutgoingRequests {
    let hosts = ["localhost", "127.0.0.1"].map(|host| format!("{host}:{port}"));
    let config = Auth { outgoing_hosts: hosts.to_vec(), ..Auth::default() };
    OutgoingRequests::new(&config).unwrap()
}

fn get<'a>(url: &'a str, authorities: &'a str) -> OutgoingRequest<'a> {
    let (authorization, payload) = (None, Payload::None);
    OutgoingRequest { url, authorities, authorization, payload, answer_bytes_max: 64 }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_form_and_a_credential_arrive_at_this_machine_without_tls() {
    let (port, site) = site(None, "HTTP/1.1 418 No\r\nContent-Length: 2\r\n\r\n{}").await;
    let (form, bearer) = ("a=b".to_owned(), "Bearer secret".to_owned());
    let (form, bearer) = (SecretString::new(form), SecretString::new(bearer));
    let url = format!("http://localhost:{port}/token?x=y");
    let request = OutgoingRequest {
        authorization: Some(&bearer),
        payload: Payload::Form(&form),
        ..get(&url, "")
    };
    let answer = requests(port).send(request).await.unwrap();
    assert_eq!((answer.status, answer.body.expose()), (418, &b"{}"[..]));
    let asked = site.await.unwrap().remove(0).to_lowercase();
    assert!(asked.starts_with("post /token?x=y http/1.1\r\n"), "{asked}");
    for part in [
        &format!("\r\nhost: localhost:{port}\r\n"),
        "\r\nauthorization: bearer secret\r\n",
        "\r\ncontent-type: application/x-www-form-urlencoded\r\n",
        "\r\n\r\na=b",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_the_authorities_of_the_mount_alone() {
    let (ours, other) = (Ca::root("ours"), Ca::root("other"));
    let leaf = || ours.issue(&Spec::server());
    for (authorities, trusted) in [(ours.pem(), true), (other.pem(), false)] {
        let (port, _site) = site(Some(leaf()), OK).await;
        let url = format!("https://127.0.0.1:{port}/");
        let sent = requests(port).send(get(&url, &authorities)).await;
        assert_eq!(sent.is_ok(), trusted, "{sent:?}");
    }
    // Its name counts, too.
    let (port, _site) = site(Some(ours.issue(&Spec::leaf().dns("other.example"))), OK).await;
    let url = format!("https://127.0.0.1:{port}/");
    let refused = requests(port).send(get(&url, &ours.pem())).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be trusted"), "{refused}");
    // And nobody is trusted by default.
    for authorities in ["", "-----BEGIN CERTIFICATE-----\n"] {
        let refused = requests(port).send(get(&url, authorities)).await.unwrap_err();
        assert!(matches!(refused, OutgoingError::Refused(_)), "{refused}");
    }
}

#[tokio::test]
async fn answers_that_lead_on_or_never_end_are_not_taken() {
    for (answer, expected) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
            "redirects",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n0123456789012345678901234567890123456789\
          0123456789012345678901234",
            "larger than 64 bytes",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "broke off"),
        ("no HTTP at all", "broke off"),
    ] {
        let (port, _site) = site(None, answer).await;
        let url = format!("http://127.0.0.1:{port}/");
        let failed = requests(port).send(get(&url, "")).await.unwrap_err();
        assert!(matches!(failed, OutgoingError::Failed(_)), "{failed}");
        assert!(failed.to_string().contains(expected), "{failed}");
    }
}

#[tokio::test]
async fn other_hosts_and_other_machines_without_tls_are_never_asked() {
    let hosts = ["10.0.0.1:80".to_owned(), "idp.example.org".to_owned()];
    let config = Auth { outgoing_hosts: hosts.to_vec(), ..Auth::default() };
    let requests = OutgoingRequests::new(&config).unwrap();
    assert_eq!(requests.check("https://idp.example.org/x"), Ok(()));
    for url in [
        "http://10.0.0.1/",
        "http://idp.example.org/",
        "https://169.254.169.254/",
        "https://127.0.0.1/",
        "https://idp.example.org:8443/",
    ] {
        assert!(matches!(requests.check(url), Err(OutgoingError::Refused(_))), "{url}");
        let refused = requests.send(get(url, "")).await.unwrap_err();
        assert!(matches!(refused, OutgoingError::Refused(_)), "{url}: {refused}");
    }
}

#[tokio::test]
async fn a_flood_of_requests_is_turned_away() {
    let requests = requests(1);
    let places = requests.running.try_acquire_many(u32::try_from(RUNNING_MAX).unwrap()).unwrap();
    let sent = requests.send(get("http://127.0.0.1:1/", "")).await.unwrap_err();
    assert_eq!(sent, OutgoingError::Busy);
    drop(places);
    let sent = requests.send(get("http://127.0.0.1:1/", "")).await.unwrap_err();
    assert!(sent.to_string().contains("cannot be reached"), "{sent}");
}

#[tokio::test]
async fn one_mount_does_not_take_the_places_of_the_others() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let all: Arc<dyn Outgoing> = Arc::new(requests(port));
    let (flooded, other) = (MountRequests::new(all.clone()), MountRequests::new(all));
    let url = format!("http://127.0.0.1:{port}/");
    let mut waiting = Vec::new();
    for _ in 0..PER_MOUNT_MAX {
        let mut sent = Box::pin(flooded.send(get(&url, "")));
        assert!(futures_util::poll!(sent.as_mut()).is_pending());
        waiting.push(sent);
    }
    assert_eq!(flooded.send(get(&url, "")).await.unwrap_err(), OutgoingError::Busy);
    let mut sent = Box::pin(other.send(get(&url, "")));
    assert!(futures_util::poll!(sent.as_mut()).is_pending(), "it is asked");
    waiting.clear();
    let mut sent = Box::pin(flooded.send(get(&url, "")));
    assert!(futures_util::poll!(sent.as_mut()).is_pending(), "there is room again");
}

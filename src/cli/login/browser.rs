//! In a browser, at an identity provider (RFC 8252): the browser comes back to a listener of ours.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Attempt, LoggedIn, Method, second_factor};
use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::client::{Reply, Request, Verb};
use crate::types::secret::SecretBytes;

/// Where providers know stock clients to listen.
const PORT: u16 = 8250;
/// Where a browser comes back to.
const PATH: &str = "/oidc/callback";
/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a connection may take to say what it wants.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// What opens an address in the person's browser, unless `$BROWSER` knows better.
const OPENER: &str = "xdg-open";

/// `-method=oidc`
pub(super) struct Browser;

#[async_trait::async_trait(?Send)]
impl Method for Browser {
    fn name(&self) -> &'static str {
        "oidc"
    }

    fn about(&self) -> &'static str {
        "A browser: role=NAME, and port=8250 skip_browser=true if need be"
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        mut attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        let port = match attempt.take("port")? {
            None => PORT,
            Some(text) => text.parse().map_err(|_| {
                CliError::local("port is no port", "give a number, such as port=8250")
            })?,
        };
        let skip = attempt.take("skip_browser")?.is_some_and(|text| text == "true" || text == "1");
        let listeners = Listeners::bind(port).await?;
        let redirect_uri = format!("http://localhost:{}{PATH}", listeners.port);
        let random = SecretBytes::random(32);
        let random = random.map_err(|error| CliError::local(error.to_string(), "try again"))?;
        let client_nonce = BASE64URL_NOPAD.encode(random.expose());
        attempt.values.insert("redirect_uri".to_owned(), json!(redirect_uri));
        attempt.values.insert("client_nonce".to_owned(), json!(client_nonce));
        // What proves who we are comes by the browser; an old token would only be in the way.
        session.refuse_showing()?;
        session.client.set_token(None);
        let Attempt { mount, values, codes, .. } = attempt;
        let path = format!("{mount}/oidc/auth_url");
        let begun = session.client.write(&path, Value::Object(values)).await?;
        let url = begun.text("auth_url").unwrap_or_default().to_owned();
        let state = checked(&url).ok_or(CliError::Answer("address to log in at"))?;
        let shown = format!("Log in with a browser on this machine:\n\n    {url}\n");
        session.output().note(&shown)?;
        if !skip {
            open((session.process.env)("BROWSER").as_deref(), &url);
        }
        let waited = tokio::time::timeout(PATIENCE, listeners.browser(&state)).await;
        let (back, stream) = waited.map_err(|_| {
            CliError::local("no browser has come back in time", "log in once more")
        })??;
        let result = finish(session, &mount, &back, &state, &client_nonce).await;
        let said = match &result {
            Ok(reply) if second_factor::is_demanded(reply) => {
                "One more thing: the terminal asks for a code. This window can be closed."
            }
            Ok(_) => "You are logged in. This window can be closed.",
            Err(_) => "You are not logged in. The terminal says why.",
        };
        answer(stream, 200, said).await;
        LoggedIn::by(second_factor::show(session, result?, &codes).await?)
    }
}

/// What a browser brought.
struct Back {
    code: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

async fn finish(
    session: &mut Session<'_>,
    mount: &str,
    back: &Back,
    state: &str,
    client_nonce: &str,
) -> Result<Reply, CliError> {
    let Some(code) = &back.code else {
        let said = back.error.as_deref().unwrap_or("nothing");
        return Err(CliError::local(
            format!("the identity provider did not log you in: {said}"),
            "log in once more, or ask whoever runs the provider",
        ));
    };
    let mut request = Request::new(Verb::Read, &format!("{mount}/oidc/callback"))
        .query("state", state)
        .query("code", code)
        .query("client_nonce", client_nonce);
    if let Some(issuer) = &back.issuer {
        request = request.query("iss", issuer);
    }
    session.send(request).await
}

/// The state in an address to log in at, if it is one that a browser may be given.
fn checked(url: &str) -> Option<String> {
    // A name of a file, or an option, would mean something else to what opens it.
    let web = url.starts_with("https://") || url.starts_with("http://");
    if !web || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (_, query) = url.split_once('?')?;
    value_of(query, "state")
}

fn open(browser: Option<&str>, url: &str) {
    for line in openers(browser, url) {
        let Some((program, arguments)) = line.split_first() else { continue };
        let opened = std::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut child) = opened {
            // It ends by itself; waiting for it is only for the process table.
            std::thread::spawn(move || child.wait());
            return;
        }
    }
    // Where there is none, the address is on the screen.
}

/// The command lines that may open `url`, the best first: those of `$BROWSER`, then the system's.
fn openers(browser: Option<&str>, url: &str) -> Vec<Vec<String>> {
    let named = browser.unwrap_or_default().split(':').chain([OPENER]);
    named.map(|line| command_line(line, url)).filter(|line| !line.is_empty()).collect()
}

/// The words of `line` with the address in the place of `%s`, or at their end. No shell reads it.
fn command_line(line: &str, url: &str) -> Vec<String> {
    let words = line.split_ascii_whitespace().map(|word| word.replace("%s", url));
    let at_the_end = !line.trim().is_empty() && !line.contains("%s");
    words.chain(at_the_end.then(|| url.to_owned())).collect()
}

/// On both loopback addresses: browsers take `localhost` for either.
struct Listeners {
    port: u16,
    four: TcpListener,
    six: Option<TcpListener>,
}

impl Listeners {
    async fn bind(port: u16) -> Result<Self, CliError> {
        let refused = |error: std::io::Error| {
            CliError::local(
                format!("cannot listen on 127.0.0.1:{port}: {error}"),
                "give another port that the provider allows: port=NUMBER",
            )
        };
        let four = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        let four = four.map_err(refused)?;
        let port = four.local_addr().map_err(refused)?.port();
        let six = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await.ok();
        Ok(Self { port, four, six })
    }

    async fn accept(&self) -> std::io::Result<TcpStream> {
        match &self.six {
            None => self.four.accept().await,
            Some(six) => tokio::select! {
                accepted = self.four.accept() => accepted,
                accepted = six.accept() => accepted,
            },
        }
        .map(|(stream, _)| stream)
    }

    /// Waits for the browser that comes back with `state`. Others are sent away: any page in the
    /// browser can make it ask here.
    async fn browser(&self, state: &str) -> Result<(Back, TcpStream), CliError> {
        loop {
            let accepted = self.accept().await;
            let mut stream = accepted.map_err(CliError::system("cannot wait for the browser"))?;
            let head = tokio::time::timeout(REQUEST_MAX, head(&mut stream)).await;
            match head.ok().flatten().and_then(|head| back(&head, state)) {
                Some(back) => return Ok((back, stream)),
                None => answer(stream, 404, "There is nothing here.").await,
            }
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut chunk) = (Vec::new(), [0u8; 4096]);
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(chunk.get(..count)?);
        if bytes.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

/// What a request brings, if it is the one that is waited for.
fn back(head: &str, state: &str) -> Option<Back> {
    let target = head.lines().next()?.strip_prefix("GET ")?.split(' ').next()?;
    let (path, query) = target.split_once('?')?;
    if path != PATH || value_of(query, "state")? != state {
        return None;
    }
    let plain = |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(Back {
        code: value_of(query, "code"),
        error: value_of(query, "error_description").or_else(|| value_of(query, "error")).map(plain),
        issuer: value_of(query, "iss"),
    })
}

fn value_of(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = value.replace('+', " ");
    percent_decode_str(&value).decode_utf8().ok().map(|text| text.into_owned())
}

async fn answer(mut stream: TcpStream, status: u16, said: &str) {
    let answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{said}\n",
        if status == 200 { "OK" } else { "Not Found" },
        said.len() + 1
    );
    // A browser that has gone needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_web_is_opened() {
        let url = "https://login.example.org/authorize?client_id=x&state=a%2Bb&nonce=n";
        assert_eq!(checked(url).as_deref(), Some("a+b"));
        for url in [
            "",
            "https://login.example.org/authorize",
            "https://login.example.org/authorize?nonce=n",
            "file:///etc/passwd?state=x",
            "javascript:alert(1)?state=x",
            "-h?state=x",
            "--version https://a/?state=x",
            "https://a/ b?state=x",
            "https://a/?state=x\u{1b}[2J",
        ] {
            assert_eq!(checked(url), None, "{url}");
        }
    }

    #[test]
    fn the_browser_of_the_environment_goes_before_the_system_s() {
        let url = "https://a/?x=%s%20&y=$(id);z&state=s";
        let lines = |browser: Option<&str>| -> Vec<String> {
            openers(browser, url).iter().map(|line| line.join("|")).collect()
        };
        let system = format!("xdg-open|{url}");
        assert_eq!(lines(None), std::slice::from_ref(&system));
        assert_eq!(lines(Some(" : ")), std::slice::from_ref(&system));
        assert_eq!(
            lines(Some("firefox --new-window:w3m -o url=%s -x")),
            [format!("firefox|--new-window|{url}"), format!("w3m|-o|url={url}|-x"), system]
        );
    }

    #[test]
    fn a_browser_comes_back_with_our_state_or_not_at_all() {
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = request("GET /oidc/callback?code=c%2F1&state=s&iss=https%3A%2F%2Fi");
        let brought = back(&head, "s").unwrap();
        assert_eq!(brought.code.as_deref(), Some("c/1"));
        assert_eq!(brought.issuer.as_deref(), Some("https://i"));
        let refused =
            back(&request("GET /oidc/callback?state=s&error=access_denied"), "s").unwrap();
        assert_eq!((refused.code, refused.error.as_deref()), (None, Some("access_denied")));
        for line in [
            "GET /oidc/callback?code=c&state=other",
            "GET /oidc/callback?code=c",
            "GET /oidc/callback",
            "GET /favicon.ico",
            "GET /other?code=c&state=s",
            "POST /oidc/callback?code=c&state=s",
            "",
        ] {
            assert!(back(&request(line), "s").is_none(), "{line}");
        }
        let noisy = request("GET /oidc/callback?state=s&error=%1b%5B2Jx");
        assert_eq!(back(&noisy, "s").unwrap().error.as_deref(), Some("[2Jx"));
    }
}

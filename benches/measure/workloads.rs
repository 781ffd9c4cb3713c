//! What clients do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use data_encoding::BASE64;

use super::driver::{Mode, Operation, Turn};
use super::session::{Ask, Client, Failure, Session, text_of};

/// Different secrets that one connection writes.
const WRITTEN: usize = 50;
/// 256 bytes, in Base64.
static PLAINTEXT: LazyLock<String> = LazyLock::new(|| BASE64.encode(&[7; 256]));

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    KvRead,
    KvList,
    KvWrite,
    Start,
    Login,
    Token,
    Credential,
    Encrypt,
    Sign,
    Wrapped,
}

impl Work {
    pub const ALL: [Self; 10] = [
        Self::KvRead,
        Self::KvList,
        Self::KvWrite,
        Self::Start,
        Self::Login,
        Self::Token,
        Self::Credential,
        Self::Encrypt,
        Self::Sign,
        Self::Wrapped,
    ];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KvRead => "kv-read",
            Self::KvList => "kv-list",
            Self::KvWrite => "kv-write",
            Self::Start => "start",
            Self::Login => "login",
            Self::Token => "token",
            Self::Credential => "credential",
            Self::Encrypt => "encrypt",
            Self::Sign => "sign",
            Self::Wrapped => "wrapped",
        }
    }

    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::KvRead => "read one secret",
            Self::KvList => "list 1,000 names",
            Self::KvWrite => "write one secret",
            Self::Start => "full handshake, then read one secret",
            Self::Login => "log in by certificate",
            Self::Token => "create a token and revoke it",
            Self::Credential => "lease a PostgreSQL user and revoke it",
            Self::Encrypt => "encrypt 256 bytes (AES-256-GCM)",
            Self::Sign => "sign 256 bytes (Ed25519)",
            Self::Wrapped => "read a secret wrapped and unwrap it",
        }
    }

    pub fn mode(self) -> Mode {
        if self == Self::Start { Mode::Reconnect } else { Mode::KeepAlive }
    }

    /// How many answers one of them takes.
    pub fn answers(self) -> usize {
        match self {
            Self::Token | Self::Credential | Self::Wrapped => 2,
            Self::KvRead
            | Self::KvList
            | Self::KvWrite
            | Self::Start
            | Self::Login
            | Self::Encrypt
            | Self::Sign => 1,
        }
    }

    /// Performs it and says how long the longest answer was.
    pub async fn measured(self, session: &mut Session) -> Result<usize, Failure> {
        self.once(session, Turn { worker: 0, count: 0 }).await
    }

    async fn once(self, session: &mut Session, turn: Turn) -> Result<usize, Failure> {
        let answer = match self {
            Self::KvRead | Self::Start => session.ask(Ask::get("/v1/secret/data/bench")).await?,
            Self::KvList => session.ask(Ask::get("/v1/secret/metadata/names?list=true")).await?,
            Self::KvWrite => {
                let path =
                    format!("/v1/secret/data/written/{}/{}", turn.worker, turn.count % WRITTEN);
                session.ask(Ask::post(&path, super::furnish::SECRET)).await?
            }
            Self::Login => {
                session.ask(Ask::post("/v1/auth/cert/login", r#"{"name":"workload"}"#)).await?
            }
            Self::Encrypt => {
                let body = format!(r#"{{"plaintext":"{}"}}"#, *PLAINTEXT);
                session.ask(Ask::post("/v1/transit/encrypt/aes", &body)).await?
            }
            Self::Sign => {
                let body = format!(r#"{{"input":"{}"}}"#, *PLAINTEXT);
                session.ask(Ask::post("/v1/transit/sign/ed", &body)).await?
            }
            Self::Token => {
                let ask = Ask::post("/v1/auth/token/create", r#"{"ttl":"5m"}"#);
                let (token, length) = created(session, ask, "client_token").await?;
                let body = format!(r#"{{"token":"{token}"}}"#);
                session.ask(Ask::post("/v1/auth/token/revoke", &body)).await?;
                return Ok(length);
            }
            Self::Credential => {
                let ask = Ask::get("/v1/database/creds/bench");
                let (lease, length) = created(session, ask, "lease_id").await?;
                let body = format!(r#"{{"lease_id":"{lease}","sync":true}}"#);
                session.ask(Ask::post("/v1/sys/leases/revoke", &body)).await?;
                return Ok(length);
            }
            Self::Wrapped => {
                let ask = Ask::get("/v1/secret/data/bench").wrapped();
                let (token, length) = created(session, ask, "token").await?;
                let body = format!(r#"{{"token":"{token}"}}"#);
                session.ask(Ask::post("/v1/sys/wrapping/unwrap", &body)).await?;
                return Ok(length);
            }
        };
        Ok(answer.len())
    }
}

async fn created(
    session: &mut Session,
    ask: Ask<'_>,
    field: &'static str,
) -> Result<(String, usize), Failure> {
    let answer = session.ask(ask).await?;
    Ok((text_of(answer, field)?.to_owned(), answer.len()))
}

impl Operation for Work {
    async fn perform(&self, session: &mut Session, turn: Turn) -> Result<(), Failure> {
        self.once(session, turn).await.map(|_| ())
    }
}

/// Starts with a certificate that the server has never seen: each is used once.
#[derive(Clone)]
pub struct FirstStart {
    clients: Arc<Vec<Client>>,
    used: Arc<AtomicUsize>,
}

impl FirstStart {
    /// With these certificates. Clones use them up together.
    pub fn new(clients: Vec<Client>) -> Self {
        Self { clients: Arc::new(clients), used: Arc::default() }
    }
}

impl Operation for FirstStart {
    async fn perform(&self, _: &mut Session, turn: Turn) -> Result<(), Failure> {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let client = self.clients.get(number).ok_or(Failure::Answer("certificate left"))?;
        let mut session = Session::new(client.clone());
        Work::Start.once(&mut session, turn).await.map(|_| ())
    }
}

/// Reads one secret of many, never the same twice in a row.
#[derive(Clone, Debug)]
pub struct ReadAmong {
    /// What comes before the number, from `/v1/` on.
    pub prefix: &'static str,
    /// How many there are.
    pub count: usize,
    /// How the number is written: all in one directory, or a thousand in each.
    pub shelved: bool,
}

impl ReadAmong {
    /// The path of secret `number`.
    pub fn path(&self, number: usize) -> String {
        match self.shelved {
            true => format!("{}{}/{}", self.prefix, number / 1000, number % 1000),
            false => format!("{}{number}", self.prefix),
        }
    }
}

impl Operation for ReadAmong {
    async fn perform(&self, session: &mut Session, turn: Turn) -> Result<(), Failure> {
        // A fixed shuffle, the same for every server: a walk by steps that share no factor with the
        // count comes by all of them.
        let step = (turn.worker * 104_729 + turn.count) as u64;
        let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let path = self.path((number % self.count as u64) as usize);
        session.ask(Ask::get(&path)).await.map(|_| ())
    }
}

//! Other servers that answer whatever a test wants, also what no honest one would.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::Value;

use crate::core::outgoing::{Outgoing, OutgoingAnswer, OutgoingError, OutgoingRequest, Payload};
use crate::types::secret::SecretBytes;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(in crate::auth) struct Asked {
    pub(in crate::auth) url: String,
    pub(in crate::auth) authorities: String,
    pub(in crate::auth) authorization: String,
    /// The form or the JSON.
    pub(in crate::auth) body: String,
}

/// A status and a body, or why there are none.
type Said = Result<(u16, String), OutgoingError>;

/// All other servers.
#[derive(Default)]
pub(in crate::auth) struct Others {
    answers: Mutex<BTreeMap<String, Said>>,
    asked: Mutex<Vec<Asked>>,
}

impl Others {
    /// From now on this is answered at `url`.
    pub(in crate::auth) fn answer(&self, url: &str, status: u16, body: &Value) {
        let answer = Ok((status, body.to_string()));
        self.answers.lock().unwrap().insert(url.to_owned(), answer);
    }

    /// From now on asking at `url` fails so.
    pub(in crate::auth) fn fail(&self, url: &str, error: OutgoingError) {
        self.answers.lock().unwrap().insert(url.to_owned(), Err(error));
    }

    /// What was asked since this was called last.
    pub(in crate::auth) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// How often anything was asked since.
    pub(in crate::auth) fn asked_times(&self) -> usize {
        self.asked().len()
    }
}

#[async_trait]
impl Outgoing for Others {
    async fn send(&self, request: OutgoingRequest<'_>) -> Result<OutgoingAnswer, OutgoingError> {
        let body = match request.payload {
            Payload::None => String::new(),
            Payload::Form(form) => form.expose().to_owned(),
            Payload::Json(json) => String::from_utf8(json.expose().to_vec()).unwrap(),
        };
        self.asked.lock().unwrap().push(Asked {
            url: request.url.to_owned(),
            authorities: request.authorities.to_owned(),
            authorization: request.authorization.map_or("", |value| value.expose()).to_owned(),
            body,
        });
        let answers = self.answers.lock().unwrap();
        let answer = answers.get(request.url).cloned();
        let (status, body) = answer.unwrap_or(Ok((404, "{}".into())))?;
        assert!(body.len() <= request.answer_bytes_max);
        Ok(OutgoingAnswer { status, body: SecretBytes::new(body.into_bytes()) })
    }

    fn check(&self, _: &str) -> Result<(), OutgoingError> {
        Ok(())
    }
}

//! `leasehold status` and the table that unsealing prints.

use serde_json::{Value, json};

use crate::cli::Finish;
use crate::cli::error::CliError;
use crate::cli::output::labelled;
use crate::cli::session::Session;
use crate::client::Reply;

const LABELS: [(&str, &str); 10] = [
    ("type", "Seal Type"),
    ("initialized", "Initialized"),
    ("sealed", "Sealed"),
    ("n", "Total Shares"),
    ("t", "Threshold"),
    ("progress", "Unseal Progress"),
    ("nonce", "Unseal Nonce"),
    ("version", "Version"),
    ("storage_type", "Storage Type"),
    ("cluster_name", "Cluster Name"),
];

/// Prints the seal's state; scripts see a sealed server in the exit status.
///
/// # Errors
/// As the server answers.
pub async fn status(session: &mut Session<'_>) -> Result<Finish, CliError> {
    let reply = session.read("sys/seal-status").await?;
    print(session, &reply)?;
    let sealed = reply.data().get("sealed").and_then(Value::as_bool).unwrap_or(true);
    Ok(if sealed { Finish::Sealed } else { Finish::Done })
}

pub(super) fn print(session: &mut Session<'_>, reply: &Reply) -> Result<(), CliError> {
    if session.output().is_document() || session.output().wants_field() {
        return session.output().object(reply.data());
    }
    let rows = rows(reply.data());
    session.output().rows(&["Key", "Value"], &rows, reply.data())
}

fn rows(data: &Value) -> Vec<Vec<String>> {
    let sealed = data.get("sealed").and_then(Value::as_bool).unwrap_or(true);
    let shown = labelled(data, &LABELS);
    LABELS
        .iter()
        .filter_map(|(name, label)| {
            let value = shown.get(*label)?;
            let text = match *name {
                "progress" if !sealed => return None,
                "progress" => {
                    format!("{value}/{}", data.get("t").unwrap_or(&json!(0)))
                }
                "nonce" | "cluster_name" if value.as_str() == Some("") => return None,
                _ => crate::cli::table::cell(value),
            };
            Some(vec![(*label).to_owned(), text])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_out_of_the_threshold_and_only_while_sealed() {
        let mut data = json!({"type": "shamir", "initialized": true, "sealed": true, "t": 3,
            "n": 5, "progress": 1, "nonce": "", "version": "0.1.0"});
        assert!(rows(&data).contains(&vec!["Unseal Progress".to_owned(), "1/3".to_owned()]));
        assert!(!rows(&data).iter().any(|row| row[0] == "Unseal Nonce"));
        data["sealed"] = json!(false);
        assert!(!rows(&data).iter().any(|row| row[0] == "Unseal Progress"));
    }
}

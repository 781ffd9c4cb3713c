//! Secrets of `kv`, both versions, with all that is readable of their past.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};

use super::copy::{Context, Mode, differing};
use super::history::{History, Steps, steps};
use super::ledger::{Entry, Outcome};
use super::progress::Progress;
use super::side::{Side, Trouble};
use crate::cli::error::CliError;
use crate::types::time::{Clock, SystemClock};

const SECRET: &str = "kv secret";
const VERSION: &str = "kv version";
/// What stands where a deleted version's values would be, for whoever brings it back.
const DELETED: &str = "the values of this version were deleted where it was imported from";

/// Copies or compares every secret of the mount at `mount`.
pub(super) async fn secrets(
    ctx: &mut Context<'_>,
    mount: &str,
    versioned: bool,
    progress: &mut Progress,
) -> Result<(), CliError> {
    let root = if versioned { format!("{mount}/metadata") } else { mount.to_owned() };
    let (paths, refused) = walk(&ctx.source, &root).await?;
    for entry in refused {
        ctx.ledger.add(entry);
    }
    progress.begin(ctx.output, &format!("{} {mount}", ctx.mode.verb()), paths.len())?;
    let (source, target, mode, overwrite) = (&ctx.source, &ctx.target, ctx.mode, ctx.overwrite);
    let mut done = stream::iter(paths)
        .map(|path| async move {
            let one = One { source, target, mode, overwrite, mount, path: &path };
            let result = if versioned { one.versions().await } else { one.plain().await };
            result.or_else(|trouble| one.left(trouble))
        })
        .buffer_unordered(ctx.concurrency);
    while let Some(entries) = done.next().await {
        for entry in entries? {
            ctx.ledger.add(entry);
        }
        progress.advance(ctx.output, ctx.ledger.left())?;
    }
    progress.end(ctx.output)
}

/// The paths of all secrets below `root`, without it; and the directories that were refused.
async fn walk(source: &Side<'_>, root: &str) -> Result<(Vec<String>, Vec<Entry>), CliError> {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let at = format!("{root}/{directory}");
        match source.list_paged(&at).await {
            Ok(names) => {
                for name in names {
                    let path = format!("{directory}{name}");
                    if name.ends_with('/') { directories.push(path) } else { found.push(path) }
                }
            }
            Err(Trouble::Stop(error)) => return Err(error),
            Err(Trouble::Refused { reason, .. }) => refused.push(Entry::left(
                SECRET,
                at,
                format!("cannot be listed there: {reason}"),
                "allow list and read on it to the token of the import, and run it again",
            )),
        }
    }
    found.sort_unstable();
    Ok((found, refused))
}

/// One secret.
struct One<'a> {
    source: &'a Side<'a>,
    target: &'a Side<'a>,
    mode: Mode,
    overwrite: bool,
    mount: &'a str,
    path: &'a str,
}

impl One<'_> {
    fn shown(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    fn at(&self, part: &str) -> String {
        format!("{}/{part}/{}", self.mount, self.path)
    }

    fn entry(&self, outcome: Outcome) -> Entry {
        Entry::new(SECRET, self.shown(), outcome)
    }

    /// A refusal concerns this secret alone.
    fn left(&self, trouble: Trouble) -> Result<Vec<Entry>, CliError> {
        match trouble {
            Trouble::Stop(error) => Err(error),
            Trouble::Refused { status: 413, reason } => Ok(vec![Entry::left(
                SECRET,
                self.shown(),
                reason,
                "raise server.max_body in the configuration, and run it again",
            )]),
            Trouble::Refused { reason, .. } => Ok(vec![Entry::left(
                SECRET,
                self.shown(),
                reason,
                "put that right and run it again, or copy it by hand",
            )]),
        }
    }

    /// A secret of version 1, which is its values and nothing else.
    async fn plain(&self) -> Result<Vec<Entry>, Trouble> {
        let path = self.shown();
        // Gone since it was listed.
        let Some(wanted) = self.source.read(&path).await? else { return Ok(Vec::new()) };
        let found = self.target.read(&path).await?;
        let same = found.as_ref() == Some(&wanted);
        let outcome = match self.mode {
            Mode::Compare if same => Outcome::Equal,
            Mode::Compare | Mode::DryRun if found.is_some() && !same && !self.overwrite => {
                Outcome::Different("has other values here".to_owned())
            }
            Mode::Compare => Outcome::Different("is not the same here".to_owned()),
            Mode::Copy | Mode::DryRun if same => Outcome::InPlace,
            Mode::Copy if found.is_some() && !self.overwrite => Outcome::Kept,
            Mode::DryRun => Outcome::Copied,
            Mode::Copy => {
                self.target.write(&path, wanted).await?;
                Outcome::Copied
            }
        };
        Ok(vec![self.entry(outcome)])
    }

    /// A secret of version 2.
    async fn versions(&self) -> Result<Vec<Entry>, Trouble> {
        let now = SystemClock.now();
        let at = self.at("metadata");
        let Some(data) = self.source.read(&at).await? else { return Ok(Vec::new()) };
        let wanted = History::read(&data, now);
        let found = self.target.read(&at).await?.map(|data| History::read(&data, now));
        let planned = match steps(&wanted, found.as_ref()) {
            Ok(planned) => planned,
            Err(why) => return Ok(vec![self.entry(self.unlike(why))]),
        };
        match self.mode {
            Mode::Compare => self.compare(&wanted, found.as_ref(), &planned).await,
            Mode::Copy | Mode::DryRun => self.copy(&wanted, found.as_ref(), &planned).await,
        }
    }

    /// Something else is here. That is for the comparison to tell.
    fn unlike(&self, why: String) -> Outcome {
        match self.mode {
            Mode::Copy => Outcome::Kept,
            Mode::DryRun | Mode::Compare => Outcome::Different(why),
        }
    }

    /// Whether what is here already belongs to the source's secret; else why not.
    async fn belongs(&self, planned: &Steps) -> Result<Option<String>, Trouble> {
        let data = self.at("data");
        for number in &planned.equal {
            let there = self.source.version(&data, *number).await?;
            if there != self.target.version(&data, *number).await? {
                return Ok(Some(format!("version {number} has other values here")));
            }
        }
        let vouched = !planned.equal.is_empty() || self.overwrite;
        for number in &planned.stand_ins {
            let marked = planned.delete.contains(number) || planned.destroy.contains(number);
            if vouched && (!marked || self.overwrite) {
                continue;
            }
            let here = self.target.version(&data, *number).await?;
            if !here.as_ref().is_some_and(is_stand_in) {
                return Ok(Some(format!("version {number} is not there any more, and is here")));
            }
        }
        Ok(None)
    }

    async fn copy(
        &self,
        wanted: &History,
        found: Option<&History>,
        planned: &Steps,
    ) -> Result<Vec<Entry>, Trouble> {
        let settled = found.is_some_and(|found| {
            differing(&wanted.settings, &Value::Object(found.settings.clone())).is_empty()
        });
        if planned.is_done() && settled {
            // Whether the values are the same is seen when everything is compared.
            return Ok(vec![self.entry(Outcome::InPlace)]);
        }
        if let Some(why) = self.belongs(planned).await? {
            return Ok(vec![self.entry(self.unlike(why))]);
        }
        let settings = match found {
            // Somebody here has chosen them; new versions come along all the same.
            Some(found) if !settled && !self.overwrite && found.is_finished() => &found.settings,
            Some(_) | None => &wanted.settings,
        };
        if planned.is_done() && *settings != wanted.settings {
            return Ok(vec![self.entry(self.unlike("has other settings here".to_owned()))]);
        }
        let live = planned.write.iter().filter(|(_, live)| *live).count();
        let mut entries = vec![self.entry(Outcome::Copied)];
        if live > 0 {
            let count = u64::try_from(live).unwrap_or(u64::MAX);
            let path = self.shown();
            entries.push(Entry { kind: VERSION, path, outcome: Outcome::Copied, count });
        }
        if !planned.unreadable.is_empty() {
            entries.push(self.unreadable(&planned.unreadable));
        }
        if self.mode == Mode::DryRun {
            return Ok(entries);
        }
        if !planned.write.is_empty() {
            self.target.write(&self.at("metadata"), wanted.settings_while_writing()).await?;
            for (number, live) in &planned.write {
                self.write_version(wanted, *number, *live).await?;
            }
        }
        for (part, numbers) in [("delete", &planned.delete), ("destroy", &planned.destroy)] {
            if !numbers.is_empty() {
                self.target.write(&self.at(part), json!({ "versions": numbers })).await?;
            }
        }
        self.target.write(&self.at("metadata"), Value::Object(settings.clone())).await?;
        Ok(entries)
    }

    async fn write_version(
        &self,
        wanted: &History,
        number: u64,
        live: bool,
    ) -> Result<(), Trouble> {
        let path = self.at("data");
        let values = if live { self.source.version(&path, number).await? } else { None };
        // Without values it is a number and nothing else: hidden, destroyed or dropped at once.
        let values = values.unwrap_or_else(|| match wanted.state(number) {
            Some(_) => json!({ "note": DELETED }),
            None => json!({}),
        });
        // The number is the condition, so that nobody else's version can get in between.
        let body = json!({ "data": values, "options": { "cas": number - 1 } });
        self.target.write(&path, body).await.map(drop)
    }

    fn unreadable(&self, numbers: &[u64]) -> Entry {
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        Entry::left(
            VERSION,
            self.shown(),
            format!("the values of deleted versions cannot be read: {}", numbers.join(", ")),
            "they are deleted here too; if they are wanted, undelete them there before the import",
        )
    }

    async fn compare(
        &self,
        wanted: &History,
        found: Option<&History>,
        planned: &Steps,
    ) -> Result<Vec<Entry>, Trouble> {
        let Some(found) = found else {
            return Ok(vec![self.entry(Outcome::Different("is not here".to_owned()))]);
        };
        if let Some((number, _)) = planned.write.first() {
            let why = format!("version {number} is not here");
            return Ok(vec![self.entry(Outcome::Different(why))]);
        }
        if let Some(number) = planned.delete.first().or(planned.destroy.first()) {
            let why = format!("version {number} is deleted there and not here");
            return Ok(vec![self.entry(Outcome::Different(why))]);
        }
        let missing = wanted.versions.keys().find(|number| !found.versions.contains_key(number));
        if let Some(number) = missing {
            let why = format!("version {number} is not here any more");
            return Ok(vec![self.entry(Outcome::Different(why))]);
        }
        let settings = differing(&wanted.settings, &Value::Object(found.settings.clone()));
        if let Some(name) = settings.first() {
            return Ok(vec![self.entry(Outcome::Different(format!("{name} differs")))]);
        }
        if let Some(why) = self.belongs(planned).await? {
            return Ok(vec![self.entry(Outcome::Different(why))]);
        }
        let mut entries = vec![self.entry(Outcome::Equal)];
        let count = u64::try_from(planned.equal.len()).unwrap_or(u64::MAX);
        if count > 0 {
            let path = self.shown();
            entries.push(Entry { kind: VERSION, path, outcome: Outcome::Equal, count });
        }
        Ok(entries)
    }
}

/// What this program writes for versions without values.
fn is_stand_in(values: &Value) -> bool {
    values.as_object().is_some_and(|values| {
        values.is_empty() || values.len() == 1 && values.get("note") == Some(&json!(DELETED))
    })
}

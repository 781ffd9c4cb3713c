//! Opening a log: checks, the end of its chain, and what a crash left behind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::{Value, json};

use super::FileSinkError;
use crate::core::audit::chain::{ChainedLine, LINE_BYTES_MAX, Witness};

/// How far back the last line's beginning is looked for.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// Bytes per read while looking backwards.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Size of the head record: one sector, so that it is replaced whole.
const HEAD_BYTES: usize = 256;
/// What every line begins with.
const LINE_START: &[u8] = b"{\"seq\":";

/// Something that the audit itself has to say: name and detail of an event.
pub(super) type Notice = (&'static str, Value);

/// An open log, cut to whole lines.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) tail: Tail,
    pub(super) notices: Vec<Notice>,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// There is no line.
    Empty,
    /// The last line.
    Line(ChainedLine),
    /// The last line is none of ours.
    Foreign,
}

impl Target {
    /// Opens or creates the log; moves a torn last line aside.
    pub(super) fn open(path: &Path) -> Result<Self, FileSinkError> {
        let failed = |source| FileSinkError::Io { path: path.into(), source };
        let file = open_private(path, OFlags::APPEND)?;
        sync_directory(path).map_err(failed)?;
        let mut notices = Vec::new();
        let len = file.metadata().map_err(failed)?.len();
        let unreadable = || FileSinkError::Unreadable { path: path.into() };
        let whole = match newline_before(&file, len).map_err(failed)? {
            Found::At(newline) => newline + 1,
            Found::Start => 0,
            Found::TooFar => return Err(unreadable()),
        };
        if whole < len {
            if !looks_torn(&file, whole, len).map_err(failed)? {
                return Err(unreadable());
            }
            let torn = with_suffix(path, ".torn");
            move_aside(&file, whole, len, &torn)?;
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
            let detail = json!({"bytes": len - whole, "moved_to": torn.display().to_string()});
            notices.push(("torn_line", detail));
        }
        let tail = read_tail(&file, whole).map_err(failed)?;
        Ok(Self { file, tail, notices })
    }

    /// Where the chain goes on, given what the record beside the log says.
    pub(super) fn continuation(
        &mut self,
        path: &Path,
        record: Option<Witness>,
    ) -> Result<Witness, FileSinkError> {
        let line = match (self.tail, record) {
            (Tail::Empty, record) => return Ok(record.unwrap_or(Witness::GENESIS)),
            (Tail::Foreign, None) => {
                return Err(FileSinkError::Unreadable { path: path.into() });
            }
            (Tail::Foreign, Some(record)) => {
                self.notices.push(("last_line_damaged", json!({"expected_seq": record.seq})));
                return Ok(record);
            }
            (Tail::Line(line), _) => line,
        };
        let found = line.witness;
        if !line.intact {
            self.notices.push(("last_line_damaged", json!({"seq": found.seq})));
            return Ok(record.unwrap_or(found));
        }
        match record {
            // A crash came between a line and its record.
            Some(record) if record.seq < found.seq => Ok(found),
            Some(record) if record.seq > found.seq => {
                let detail = json!({"last_seq": found.seq, "expected_seq": record.seq});
                self.notices.push(("lines_missing", detail));
                Ok(record)
            }
            Some(record) if record.hash != found.hash => {
                self.notices.push(("last_line_replaced", json!({"seq": found.seq})));
                Ok(record)
            }
            Some(_) | None => Ok(found),
        }
    }
}

/// The record of the chain's end, in a file of its own that is locked as long as the sink lives.
pub(super) struct HeadRecord {
    file: File,
}

impl HeadRecord {
    /// Opens and locks the record of the log at `log`.
    pub(super) fn open(log: &Path) -> Result<(Self, Option<Witness>, Vec<Notice>), FileSinkError> {
        let path = head_path(log);
        let file = open_private(&path, OFlags::empty())?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                FileSinkError::InUse { path: log.into() }
            } else {
                FileSinkError::Io { path: path.clone(), source: error.into() }
            }
        })?;
        let failed = |source| FileSinkError::Io { path: path.clone(), source };
        let empty = file.metadata().map_err(failed)?.len() == 0;
        let record = parse_head(&file).map_err(failed)?;
        let damaged = record.is_none() && !empty;
        let notices = if damaged { vec![("head_record_damaged", json!({}))] } else { Vec::new() };
        Ok((Self { file }, record, notices))
    }

    /// Replaces the record.
    pub(super) fn write(&self, head: &Witness) -> io::Result<()> {
        let mut record = serde_json::to_vec(head)?;
        record.resize(HEAD_BYTES - 1, b' ');
        record.push(b'\n');
        self.file.write_all_at(&record, 0)
    }

    /// Makes it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Where the record of the log at `log` lies.
pub(super) fn head_path(log: &Path) -> PathBuf {
    with_suffix(log, ".head")
}

/// Reads a record without locking it.
pub(super) fn read_head_record(path: &Path) -> io::Result<Option<Witness>> {
    match File::open(path) {
        Ok(file) => parse_head(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_head(file: &File) -> io::Result<Option<Witness>> {
    let mut record = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut record)?;
    Ok(serde_json::from_slice(&record).ok())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens or creates a file that is ours alone: regular, no link, mode 0600 when new.
fn open_private(path: &Path, flags: OFlags) -> Result<File, FileSinkError> {
    let failed = |source| FileSinkError::Io { path: path.into(), source };
    let flags =
        flags | OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| {
        if error == rustix::io::Errno::LOOP {
            FileSinkError::NotRegular { path: path.into() }
        } else {
            failed(error.into())
        }
    })?;
    let file = File::from(fd);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileSinkError::NotRegular { path: path.into() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(FileSinkError::Exposed { path: path.into(), mode: metadata.mode() & 0o777 });
    }
    Ok(file)
}

/// A new name is durable only once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

enum Found {
    /// Position of the newline.
    At(u64),
    /// There is none before the start of the file.
    Start,
    /// There is none within [`TAIL_BYTES_MAX`].
    TooFar,
}

/// Looks backwards from `end` for a newline.
fn newline_before(file: &File, end: u64) -> io::Result<Found> {
    let stop = end.saturating_sub(TAIL_BYTES_MAX);
    let mut high = end;
    let mut chunk = Vec::new();
    while high > stop {
        let low = high.saturating_sub(CHUNK_BYTES).max(stop);
        read_range(file, low, high, &mut chunk)?;
        if let Some(position) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Found::At(low + position as u64));
        }
        high = low;
    }
    Ok(if stop == 0 { Found::Start } else { Found::TooFar })
}

fn read_range(file: &File, low: u64, high: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let len = usize::try_from(high - low).map_err(io::Error::other)?;
    into.clear();
    into.resize(len, 0);
    file.read_exact_at(into, low)
}

/// Whether the bytes after the last newline can be the beginning of a line of ours, or the zeros that
/// some file systems leave after a power loss. Anything else is somebody else's file.
fn looks_torn(file: &File, low: u64, high: u64) -> io::Result<bool> {
    let mut start = Vec::new();
    read_range(file, low, high.min(low + LINE_START.len() as u64), &mut start)?;
    Ok(LINE_START.starts_with(&start) || start.iter().all(|byte| *byte == 0))
}

/// Appends a range of the log to the file of torn lines.
fn move_aside(file: &File, low: u64, high: u64, torn: &Path) -> Result<(), FileSinkError> {
    let failed = |source| FileSinkError::Io { path: torn.into(), source };
    let mut aside = open_private(torn, OFlags::APPEND)?;
    let mut chunk = Vec::new();
    let mut from = low;
    while from < high {
        let to = high.min(from + CHUNK_BYTES);
        read_range(file, from, to, &mut chunk).map_err(failed)?;
        aside.write_all(&chunk).map_err(failed)?;
        from = to;
    }
    aside.write_all(b"\n").and_then(|()| aside.sync_all()).map_err(failed)
}

/// Reads the last line of a log whose last byte, before `end`, is a newline.
fn read_tail(file: &File, end: u64) -> io::Result<Tail> {
    let Some(newline) = end.checked_sub(1) else { return Ok(Tail::Empty) };
    let start = match newline_before(file, newline)? {
        Found::At(position) => position + 1,
        Found::Start => 0,
        Found::TooFar => return Ok(Tail::Foreign),
    };
    if newline - start > LINE_BYTES_MAX as u64 {
        return Ok(Tail::Foreign);
    }
    let mut line = Vec::new();
    read_range(file, start, newline, &mut line)?;
    Ok(ChainedLine::parse(&line).map_or(Tail::Foreign, Tail::Line))
}

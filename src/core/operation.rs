//! What a caller wants to do with a path.

use std::fmt;

use serde::Serialize;

/// An operation, as policies grant it and engines serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Write to a path where nothing is yet (POST or PUT).
    Create,
    /// DELETE.
    Delete,
    /// LIST, or GET with `list=true`.
    List,
    /// PATCH.
    Patch,
    /// GET.
    Read,
    /// Write to a path that exists, or where the engine does not tell (POST or PUT).
    Update,
}

impl Operation {
    /// The name of the capability that grants it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Read => "read",
            Self::Update => "update",
        }
    }

    /// Whether it may change something.
    pub const fn is_write(self) -> bool {
        match self {
            Self::Create | Self::Delete | Self::Patch | Self::Update => true,
            Self::List | Self::Read => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

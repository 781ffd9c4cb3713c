//! What a rule grants on a path.

use crate::core::operation::Operation;

/// A set of capabilities. Compared and united as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u16);

impl CapabilitySet {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// `create`.
    pub const CREATE: Self = Self(1);
    /// `delete`.
    pub const DELETE: Self = Self(1 << 1);
    /// `deny`: takes everything away, here and in the rules it is united with.
    pub const DENY: Self = Self(1 << 2);
    /// `list`.
    pub const LIST: Self = Self(1 << 3);
    /// `patch`.
    pub const PATCH: Self = Self(1 << 4);
    /// `read`.
    pub const READ: Self = Self(1 << 5);
    /// `scan`, which OpenBao's policies may name. No operation here asks for it.
    pub const SCAN: Self = Self(1 << 6);
    /// `sudo`: may use root-protected paths.
    pub const SUDO: Self = Self(1 << 7);
    /// `update`.
    pub const UPDATE: Self = Self(1 << 8);

    /// In alphabetical order, as `sys/capabilities` answers.
    const NAMES: [(Self, &'static str); 9] = [
        (Self::CREATE, "create"),
        (Self::DELETE, "delete"),
        (Self::DENY, "deny"),
        (Self::LIST, "list"),
        (Self::PATCH, "patch"),
        (Self::READ, "read"),
        (Self::SCAN, "scan"),
        (Self::SUDO, "sudo"),
        (Self::UPDATE, "update"),
    ];

    /// The capability of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(set, _)| *set)
    }

    /// What the old `policy = "…"` key stands for.
    pub fn legacy(name: &str) -> Option<Self> {
        let write = Self::CREATE | Self::READ | Self::UPDATE | Self::DELETE | Self::LIST;
        match name {
            "deny" => Some(Self::DENY),
            "read" => Some(Self::READ | Self::LIST),
            "write" => Some(write),
            "sudo" => Some(write | Self::SUDO),
            _ => None,
        }
    }

    /// The capability that an operation asks for.
    pub const fn needed_by(operation: Operation) -> Self {
        match operation {
            Operation::Create => Self::CREATE,
            Operation::Delete => Self::DELETE,
            Operation::List => Self::LIST,
            Operation::Patch => Self::PATCH,
            Operation::Read => Self::READ,
            Operation::Update => Self::UPDATE,
        }
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The same, where `deny` leaves nothing but itself.
    pub const fn settled(self) -> Self {
        if self.contains(Self::DENY) { Self::DENY } else { self }
    }

    /// The same without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Their names in alphabetical order.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(set, _)| self.contains(*set)).map(|(_, name)| *name).collect()
    }
}

impl std::ops::BitOr for CapabilitySet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_read_back() {
        let names: Vec<_> = CapabilitySet::NAMES.iter().map(|(_, name)| *name).collect();
        assert!(names.is_sorted());
        for name in names {
            assert_eq!(CapabilitySet::named(name).unwrap().names(), [name]);
        }
        assert_eq!(CapabilitySet::named("Read"), None);
        assert_eq!(CapabilitySet::named("root"), None);
    }

    #[test]
    fn deny_leaves_only_itself() {
        let set = CapabilitySet::READ | CapabilitySet::DENY | CapabilitySet::SUDO;
        assert_eq!(set.settled(), CapabilitySet::DENY);
    }

    #[test]
    fn each_operation_needs_the_capability_of_its_name() {
        for operation in [
            Operation::Create,
            Operation::Delete,
            Operation::List,
            Operation::Patch,
            Operation::Read,
            Operation::Update,
        ] {
            assert_eq!(CapabilitySet::needed_by(operation).names(), [operation.as_str()]);
        }
    }
}

//! Proof that an act was allowed.

use crate::core::operation::Operation;
use crate::types::path::ApiPath;

/// One act that was judged and allowed. Whatever acts for a caller asks for one; it cannot be
/// made, copied or changed elsewhere, so nothing acts without having been judged.
///
/// ```
/// use leasehold::core::acl::permit::Permit;
/// use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
/// use leasehold::core::operation::Operation;
/// use leasehold::core::policy::template::TemplateValues;
/// use leasehold::types::path::ApiPath;
///
/// let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
/// let path = ApiPath::parse("secret/data/x").unwrap();
/// let permit: Permit = acl.authorize(&CheckRequest::new(&path, Operation::Read)).unwrap();
/// assert_eq!(permit.path(), &path);
/// ```
///
/// Not twice:
///
/// ```compile_fail,E0599
/// # fn act(permit: leasehold::core::acl::permit::Permit) {
/// let copy: leasehold::core::acl::permit::Permit = permit.clone();
/// # }
/// ```
///
/// Not by hand:
///
/// ```compile_fail,E0451
/// # use leasehold::core::{acl::permit::Permit, operation::Operation};
/// # fn act(path: leasehold::types::path::ApiPath) {
/// let permit = Permit { path, operation: Operation::Read, sudo: true };
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a permit is the proof that an act was allowed: hand it to what acts"]
pub struct Permit {
    path: ApiPath,
    operation: Operation,
    sudo: bool,
}

impl Permit {
    /// For the ACL, which has judged.
    pub(super) fn granted(path: &ApiPath, operation: Operation, sudo: bool) -> Self {
        Self { path: path.clone(), operation, sudo }
    }

    /// For the paths that are open to everyone by what they are for: logins and the seal's own.
    /// There is no caller yet whose policies could be asked.
    pub(in crate::core) fn unauthenticated(path: &ApiPath, operation: Operation) -> Self {
        Self { path: path.clone(), operation, sudo: false }
    }

    /// For the paths that any caller may ask, because they answer with the caller's own business only.
    pub(in crate::core) fn identified(path: &ApiPath, operation: Operation) -> Self {
        Self { path: path.clone(), operation, sudo: false }
    }

    /// On which path.
    pub fn path(&self) -> &ApiPath {
        &self.path
    }

    /// Which operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether root-protected paths are open to the caller here.
    pub fn sudo(&self) -> bool {
        self.sudo
    }
}

/// A refusal. What it shows is the same for all; why is for the audit and for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("permission denied")]
pub struct Denial {
    reason: String,
}

impl Denial {
    pub(super) fn new(reason: String) -> Self {
        Self { reason }
    }

    /// Why, for the audit only: it names rules that the caller may not know.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

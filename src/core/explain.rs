//! What the request path would decide about a caller, and why, without asking it to do anything.

use super::acl::explain::Explanation;
use super::acl::{Acl, CheckRequest};
use super::caller::refuse_disabled;
use super::context::{Core, Unsealed};
use super::error::CoreError;
use super::policy::PolicyName;
use super::policy::template::TemplateValues;
use super::route::Access;
use super::seal::endpoints;
use crate::types::id::EntityId;

/// Somebody who may never have asked: what its policies would be.
#[derive(Debug, Default)]
pub struct Supposed {
    /// The entity, with its own policies and those of its groups, and with its values in templates.
    pub entity: Option<EntityId>,
    /// Policies that its role or its token has.
    pub policies: Vec<String>,
    /// Whether `default` is not among them unless it is named. Only entities have it unnamed.
    pub no_default_policy: bool,
}

impl Core {
    /// What is decided when a caller with `acl` asks, by its policies and by what the path demands.
    pub fn explain(
        &self,
        unsealed: &Unsealed,
        acl: &Acl,
        request: &CheckRequest<'_>,
    ) -> Explanation {
        acl.explain(request).at(self.access(unsealed, request))
    }

    /// What is decided when somebody asks whose standing counts no more, for the reason given.
    pub fn explain_without_standing(
        &self,
        unsealed: &Unsealed,
        request: &CheckRequest<'_>,
        reason: String,
    ) -> Explanation {
        // Where nobody has to be known, nobody is looked at.
        let access = self.access(unsealed, request).filter(|access| *access == Access::Public);
        Explanation::without_standing(request, reason).at(access)
    }

    fn access(&self, unsealed: &Unsealed, request: &CheckRequest<'_>) -> Option<Access> {
        // The seal's own paths come before all others.
        match endpoints::specs().find(|spec| spec.pattern == request.path.as_str()) {
            Some(spec) => Some(spec.access),
            None => self.access_at(unsealed, request.path, request.operation),
        }
    }
}

impl Unsealed {
    /// The policies that somebody would be judged by.
    ///
    /// # Errors
    /// `Invalid` when there is no such entity, `Denied` when it is disabled.
    pub async fn supposed(&self, who: Supposed) -> Result<Acl, CoreError> {
        let mut names = who.policies;
        let mut values = TemplateValues::default();
        if let Some(id) = &who.entity {
            let entity = self.identity.get(id).await?;
            let entity = entity
                .ok_or_else(|| CoreError::field("entity_id", "is not the id of an entity"))?;
            refuse_disabled(&entity)?;
            let standing = self.identity.standing(&entity, &[]).await?;
            names.extend(standing.policies);
            if !who.no_default_policy {
                names.push(PolicyName::default_policy().to_string());
            }
            values = TemplateValues { groups: standing.groups, ..entity.template_values() };
        }
        names.sort_unstable();
        names.dedup();
        self.policies.acl(&names, &values).await
    }
}

//! `sys/internal/specs`: the OpenAPI document, and help on a path. Both show the mounts that the
//! caller has some business with, and of the rest that it is not there.

use std::fmt::Write;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::ui::sees;
use crate::api::openapi::{self, Place};
use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Access, Answer, FieldKind, RouteSpec, field, route};
use crate::types::path::ApiPath;

/// The table.
pub struct SpecRoutes;

/// Where the help on a path is, which is also what `?help=1` on it leads to.
pub const HELP_OF: &str = "sys/internal/specs/path-help/";

const JSON: &str = "application/json";
const READ: &[Operation] = &[Operation::Read];

static ROUTES: &[RouteSpec] = &[
    route(
        "openapi",
        "internal/specs/openapi",
        "The OpenAPI document of all that the caller can see.",
        READ,
        &[field(
            "generic_mount_paths",
            FieldKind::Boolean,
            "Have the path of a mount a parameter.",
        )],
    )
    .identified()
    .reads(Answer::Raw(JSON)),
    route(
        "path-help",
        "internal/specs/path-help/*path",
        "What a path is for; what the path itself answers with `?help=1`.",
        READ,
        &[],
    )
    .identified()
    .reads(Answer::Bare(&[
        field("help", FieldKind::Text, "For people."),
        field("openapi", FieldKind::Map, "The OpenAPI document of that path alone."),
        field("see_also", FieldKind::List, "Other paths of the same kind."),
    ])),
];

#[async_trait]
impl SystemRoutes for SpecRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        if request.route.name == "path-help" {
            return help(ctx, &ApiPath::parse(request.params.get("path"))?);
        }
        let generic = request.fields.boolean("generic_mount_paths")?.unwrap_or(false);
        Ok(unaudited(&openapi::document(&places(ctx, generic))))
    }
}

/// All tables that the caller can see.
fn places(ctx: &SystemContext<'_>, generic: bool) -> Vec<Place> {
    let mut places = vec![Place::seal()];
    let tables = ctx.core.system().iter();
    places.extend(tables.map(|table| Place::system(table.prefix(), table.routes())));
    for mounted in ctx.unsealed.mounts.all().iter().filter(|mounted| sees(ctx, mounted)) {
        let entry = &mounted.entry;
        let place = Place::mount(&entry.path, &entry.kind, &entry.options, mounted.routes());
        if !generic {
            places.push(place);
            continue;
        }
        let place = place.anywhere();
        if places.iter().all(|other| other.at() != place.at()) {
            places.push(place);
        }
    }
    places
}

fn help(ctx: &SystemContext<'_>, path: &ApiPath) -> Result<Reply, CoreError> {
    let below = |place: &Place| match place.at() {
        // The seal's patterns are whole paths.
        "" => Some(path.as_str().to_owned()),
        at => path.strip_mount(at).map(str::to_owned),
    };
    let near: Vec<(Place, String)> =
        places(ctx, false).into_iter().filter_map(|p| Some((p.clone(), below(&p)?))).collect();
    if near.iter().all(|(place, _)| place.at().is_empty()) {
        return Err(CoreError::denied("no visible mount serves that path"));
    }
    let narrowed = |(place, rest): &(Place, String)| {
        if rest.is_empty() { place.clone() } else { place.clone().only(rest) }
    };
    let found: Vec<Place> =
        near.iter().map(narrowed).filter(|place| !place.routes().is_empty()).collect();
    if found.is_empty() {
        return Err(CoreError::NotFound);
    }
    let near: Vec<Place> = near.into_iter().map(|(place, _)| place).collect();
    Ok(unaudited(&json!({
        "help": text(path, &found),
        "openapi": openapi::document(&found),
        "see_also": see_also(&found, &near),
    })))
}

/// An answer that is not data, so that the audit does not have to hash every word of a document that
/// is no secret.
fn unaudited(body: &Value) -> Reply {
    Reply::empty().shaped(Shape::Raw { content_type: JSON, body: body.to_string().into_bytes() })
}

/// The paths of `near` that begin as those of `found` do.
fn see_also(found: &[Place], near: &[Place]) -> Vec<String> {
    let begin = |place: &Place, route: &RouteSpec| {
        let first = route.pattern.split('/').next().unwrap_or_default();
        format!("{}{first}", place.at())
    };
    let all = |places: &[Place]| -> Vec<(String, String)> {
        let of = |place: &Place| {
            let whole = |route: &&'static RouteSpec| {
                (begin(place, route), format!("{}{}", place.at(), route.pattern))
            };
            place.routes().iter().map(whole).collect::<Vec<_>>()
        };
        places.iter().flat_map(of).collect()
    };
    let shown = all(found);
    all(near)
        .into_iter()
        .filter(|(begin, path)| {
            shown.iter().any(|(other, _)| other == begin)
                && shown.iter().all(|(_, other)| other != path)
        })
        .map(|(_, path)| path)
        .collect()
}

/// The help for people: in full for few routes, by name for a whole mount.
fn text(path: &ApiPath, places: &[Place]) -> String {
    let mut text = format!("Path:  {path}\n");
    let few = places.iter().map(|place| place.routes().len()).sum::<usize>() <= 3;
    for place in places {
        for route in place.routes() {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n{}{}\n    {}\n", place.at(), route.pattern, route.summary);
            if few {
                text.push_str(&details(route));
            }
        }
    }
    text
}

fn details(route: &RouteSpec) -> String {
    let operations: Vec<&str> = route.operations.iter().map(|one| one.as_str()).collect();
    let mut text = format!("    Capabilities: {}", operations.join(", "));
    text.push_str(match route.access {
        Access::Caller => "\n",
        Access::Identified => " (no policy has to grant them)\n",
        Access::Anybody | Access::Public => " (nobody has to log in)\n",
        Access::Sudo => ", and sudo\n",
    });
    for field in route.fields {
        let _ =
            write!(text, "\n    {} ({})\n        {}\n", field.name, word(field.kind), field.about);
    }
    text
}

fn word(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Any => "anything",
        FieldKind::Boolean => "true or false",
        FieldKind::Duration => "duration",
        FieldKind::Integer => "whole number",
        FieldKind::Integers => "whole numbers",
        FieldKind::List => "list",
        FieldKind::Map | FieldKind::Object(_) => "object",
        FieldKind::Number => "number",
        FieldKind::Objects(_) => "objects",
        FieldKind::Secret => "secret text",
        FieldKind::Text => "text",
        FieldKind::Time => "time",
    }
}

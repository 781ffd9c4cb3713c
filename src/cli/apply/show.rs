//! A plan as people and programs read it.

use serde_json::{Map, Value, json};

use super::plan::{Action, Difference, Plan, Step, To};
use crate::cli::error::CliError;
use crate::cli::meaning::is_duration;
use crate::cli::output::Output;
use crate::cli::table;

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
/// What is printed in place of a secret.
const HIDDEN: &str = "(secret)";

/// Prints the plan for people.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn people(plan: &Plan, output: &mut Output) -> Result<(), CliError> {
    for step in &plan.steps {
        let (mark, colour) = match step.action {
            Action::Create => ("+", GREEN),
            Action::Update => ("~", YELLOW),
            Action::Delete => ("-", RED),
        };
        let head = format!("{mark} {} {}", step.kind.name(), table::printable(&step.name));
        let head = output.painted_data(&head, colour);
        output.line(&head)?;
        for difference in &step.differences {
            show_difference(step, difference, output)?;
        }
        for note in &step.notes {
            output.line(&format!("      note: {}", table::printable(note)))?;
        }
    }
    if !plan.steps.is_empty() {
        output.line("")?;
    }
    let count = |action| plan.steps.iter().filter(|step| step.action == action).count();
    output.line(&format!(
        "{} to create, {} to change, {} to delete, {} as they should be.",
        count(Action::Create),
        count(Action::Update),
        count(Action::Delete),
        plan.in_place
    ))?;
    if !plan.unread.is_empty() {
        output.line(&format!(
            "Not compared, since the server does not answer it: {}.",
            table::printable(&plan.unread.join("; "))
        ))?;
    }
    Ok(())
}

fn show_difference(
    step: &Step,
    difference: &Difference,
    output: &mut Output,
) -> Result<(), CliError> {
    let Difference { field, from, to } = difference;
    if let (To::Value(Value::String(new)), from) = (to, from)
        && (new.contains('\n') || from.as_ref().and_then(Value::as_str).is_some_and(has_lines))
    {
        output.line(&format!("      {field}:"))?;
        let old = from.as_ref().and_then(Value::as_str).unwrap_or_default();
        for (mark, line) in changed_lines(old, new) {
            let colour = if mark == '+' { GREEN } else { RED };
            let line = output.painted_data(&format!("{mark} {}", table::printable(line)), colour);
            output.line(&format!("        {line}"))?;
        }
        return Ok(());
    }
    let to = match to {
        To::Value(value) => spelled(field, value),
        To::Hidden => HIDDEN.to_owned(),
        To::Later(path) => format!("(known once {path} is there)"),
    };
    let line = match from {
        Some(from) => format!("      {field}: {} -> {to}", spelled(field, from)),
        None if step.action == Action::Create => format!("      {field}: {to}"),
        None => format!("      {field}: -> {to}"),
    };
    output.line(&table::printable(&line))
}

fn has_lines(text: &str) -> bool {
    text.contains('\n')
}

/// A value on one line; durations as people write them.
fn spelled(field: &str, value: &Value) -> String {
    match value.as_i64() {
        Some(secs) if is_duration(field) => table::duration(secs),
        Some(_) | None if value.as_str() == Some("") => "\"\"".to_owned(),
        Some(_) | None => table::cell(value),
    }
}

/// The lines that differ between two texts: all between what both begin and end with.
fn changed_lines<'t>(old: &'t str, new: &'t str) -> Vec<(char, &'t str)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let cut = |lines: &[&'t str]| lines.len().saturating_sub(end);
    let (gone, added) = (old.iter().take(cut(old)), new.iter().take(cut(new)));
    gone.map(|line| ('-', *line)).chain(added.map(|line| ('+', *line))).collect()
}

/// The plan for programs. `done` of its steps have been carried out, if any were to be.
pub(super) fn programs(plan: &Plan, done: Option<usize>) -> Value {
    let steps = plan.steps.iter().enumerate().map(|(index, step)| {
        let mut out = Map::new();
        let action = match step.action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        };
        out.insert("action".to_owned(), json!(action));
        out.insert("kind".to_owned(), json!(step.kind.name().replace(' ', "_")));
        out.insert("name".to_owned(), json!(step.name));
        let fields: Vec<Value> = step.differences.iter().map(difference_for_programs).collect();
        out.insert("fields".to_owned(), Value::Array(fields));
        out.insert("notes".to_owned(), json!(step.notes));
        if let Some(done) = done {
            out.insert("done".to_owned(), json!(index < done));
        }
        Value::Object(out)
    });
    json!({
        "changes": steps.collect::<Vec<_>>(),
        "in_place": plan.in_place,
        "not_compared": plan.unread,
    })
}

fn difference_for_programs(difference: &Difference) -> Value {
    let Difference { field, from, to } = difference;
    match to {
        To::Value(value) => json!({ "field": field, "from": from, "to": value }),
        To::Hidden => json!({ "field": field, "secret": true }),
        To::Later(path) => json!({ "field": field, "from": from, "known_from": path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_shown() {
        let lines = changed_lines("a\nb\nc\nd", "a\nx\ny\nd");
        assert_eq!(lines, [('-', "b"), ('-', "c"), ('+', "x"), ('+', "y")]);
        assert_eq!(changed_lines("", "a\nb"), [('+', "a"), ('+', "b")]);
        assert_eq!(changed_lines("a\na", "a"), [('-', "a")]);
    }

    #[test]
    fn a_hidden_value_is_nowhere_in_what_programs_get() {
        let difference =
            Difference { field: "password".to_owned(), from: Some(json!("old")), to: To::Hidden };
        assert_eq!(
            difference_for_programs(&difference),
            json!({"field": "password", "secret": true})
        );
    }
}

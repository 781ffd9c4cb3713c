//! Long flags with one dash, as users of comparable tools type them.

use std::ffi::OsString;

use clap::Command;

/// Turns `-field=x` into `--field=x` wherever `command`, or the subcommand reached so far, knows
/// `field` as a long flag. Everything after `--` and everything not UTF-8 is left as it is.
pub fn with_double_dashes(
    command: &Command,
    args: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut chain = vec![command];
    let mut literal = false;
    for arg in args {
        let Some(text) = arg.to_str().filter(|_| !literal) else {
            out.push(arg);
            continue;
        };
        if text == "--" {
            literal = true;
        } else if is_long_with_one_dash(&chain, text) {
            out.push(format!("-{text}").into());
            continue;
        } else if let Some(next) = chain.last().and_then(|last| last.find_subcommand(text)) {
            chain.push(next);
        }
        out.push(arg);
    }
    out
}

fn is_long_with_one_dash(chain: &[&Command], text: &str) -> bool {
    let Some(name) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return false;
    };
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    if name.chars().count() < 2 {
        return false;
    }
    name == "help"
        || name == "version" && chain.len() == 1
        || chain.iter().flat_map(|command| command.get_arguments()).any(|arg| {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn converted(args: &[&str]) -> Vec<String> {
        let command = Command::new("leasehold")
            .arg(Arg::new("format").long("format").global(true))
            .subcommand(
                Command::new("write")
                    .arg(Arg::new("force").long("force").short('f').action(ArgAction::SetTrue)),
            )
            .subcommand(
                Command::new("kv")
                    .subcommand(Command::new("get").arg(Arg::new("mount").long("mount"))),
            );
        with_double_dashes(&command, args.iter().map(OsString::from))
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    #[test]
    fn known_long_flags_gain_their_second_dash() {
        assert_eq!(
            converted(&["leasehold", "kv", "get", "-mount=secret", "-format", "json", "x"]),
            ["leasehold", "kv", "get", "--mount=secret", "--format", "json", "x"]
        );
    }

    #[test]
    fn what_is_not_a_long_flag_here_stays_as_it_was() {
        for arg in ["-", "-f", "--force", "-mount=x", "-nosuch", "key=-force", "-=x"] {
            assert_eq!(converted(&["leasehold", "write", arg]), ["leasehold", "write", arg]);
        }
        assert_eq!(
            converted(&["leasehold", "write", "--", "-force"]),
            ["leasehold", "write", "--", "-force"]
        );
    }

    #[test]
    fn the_programs_own_name_is_not_looked_at() {
        assert_eq!(converted(&["-format", "write"]), ["-format", "write"]);
    }
}

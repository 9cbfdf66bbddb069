//! What `--help` says, written down: a change of the command line is a visible change.
//!
//! To accept one: `INSTA_UPDATE=always cargo test --test program help`.

use std::time::Duration;

use assert_cmd::Command;

/// Nobody waits longer for a text.
const LIMIT: Duration = Duration::from_secs(60);

fn help_of(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zferry"));
    // Lines are broken for the terminal, where there is one.
    command.args(words).arg("--help").env_remove("COLUMNS").timeout(LIMIT);
    let output = command.assert().success().get_output().clone();
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_of_every_command_is_as_written_down() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::assert_snapshot!("help", help_of(&[]));
        for command in [
            "replicate",
            "serve",
            "schedule",
            "send",
            "receive",
            "inspect",
            "prune",
            "status",
            "monitor",
            "doctor",
            "tune",
            "completions",
        ] {
            insta::assert_snapshot!(format!("help-{command}"), help_of(&[command]));
        }
        for words in [
            ["keys"].as_slice(),
            &["keys", "show"],
            &["keys", "trust"],
            &["keys", "trust", "client"],
            &["keys", "trust", "server"],
            &["keys", "revoke"],
            &["keys", "revoke", "client"],
            &["keys", "revoke", "server"],
        ] {
            insta::assert_snapshot!(format!("help-{}", words.join("-")), help_of(words));
        }
    });
}

#[test]
fn every_command_that_help_names_has_a_help_of_its_own() {
    let help = help_of(&[]);
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // A line that goes on stands further in.
    let names: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names.into_iter().filter(|&name| name != "help") {
        assert!(help_of(&[name]).contains("Usage: zferry"), "{name}");
    }
}

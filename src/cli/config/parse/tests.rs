//! What is understood of a configuration, and what is said of mistakes.

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_job_says_when_and_whatever_replicate_understands() {
    let config = Config::parse(
        r#"
state = "/var/lib/zferry"
parallel = 3

[defaults]
jitter = "1m"
compress = "auto"
no-snapshot = true

[[job]]
name = "home"
source = "tank/home"
target = "root@backup:pool/home"
every = "15m"
written = "1GiB"
compress = "zstd:3"
connections = 4
ssh-option = ["A=b", "C=d"]

[[job]]
name = "mail"
source = "tank/mail"
target = "backup/mail"
cron = "0 3 * * * UTC"
jitter = "0s"
"#,
    )
    .unwrap();
    assert_eq!((config.parallel.get(), config.jobs.len()), (3, 2));
    let [home, mail] = config.jobs.try_into().unwrap();
    assert_eq!((home.name.as_str(), mail.name.as_str()), ("home", "mail"));
    let written = Some(Written { least: Bytes::GIB, check: Duration::from_secs(60) });
    assert_eq!((home.trigger.written, home.trigger.jitter.as_secs()), (written, 60));
    assert!(matches!(home.trigger.rhythm, Some(Rhythm::Every(pause)) if pause.as_secs() == 900));
    assert!(matches!(mail.trigger.rhythm, Some(Rhythm::Cron(_))));
    assert_eq!((mail.trigger.written, mail.trigger.jitter.as_secs()), (None, 0));
    let typed = format!("{:?}", home.copy);
    for part in ["Zstd", "A=b", "C=d", "tank/home", "root@backup:pool/home"] {
        assert!(typed.contains(part), "{part} in {typed}");
    }
}

#[test]
fn all_mistakes_are_told_each_with_its_place_and_what_is_right() {
    let told = mistakes(
        r#"parallel = 0
sate = "x"

[[job]]
name = "a b"
source = "tank/a"
target = "backup/a"
every = "15 parsecs"

[[job]]
name = "b"
source = "tank/b"
target = 5
compress = "zstd:99"
compres = "auto"
plain = "yes"

[[job]]
name = "c"
source = "tank/c"
target = "backup/c"
compress = "zstd:99"
every = "1m"

[[job]]
name = "c"
source = "tank/c"
target = "backup/c"
every = "1m"
cron = "* * * * *"

[[job]]
name = "d"
source = "tank/c"
target = "backup/c"
"#,
    );
    let expected = [
        "1:12: this is a number of jobs, at least 1",
        "2:1: `sate` is not known here; state, parallel, [defaults] and [[job]] are",
        "5:8: a name has letters, digits, dots, - and _, 100 at most",
        "8:9: use a time such as 30s, 10m or 1h30m",
        "10:1: nothing starts this job: every = \"15m\", a cron expression, or written = \
         \"1GiB\"",
        "13:10: this is a text in quotes",
    ];
    assert_eq!(told[..6], expected, "{told:#?}");
    assert!(told[6].starts_with("22:12: invalid value 'zstd:99' for '--compress"), "{told:#?}");
    assert!(told[7].starts_with("30:1: a job has one rhythm"), "{told:#?}");
    assert!(told[8].starts_with("32:1: nothing starts this job"), "{told:#?}");
}

#[test]
fn the_example_has_no_mistake() {
    let example = include_str!("../../../../docs/zferry.toml");
    assert_eq!(Config::parse(example).unwrap().jobs.len(), 3);
}

#[test]
fn a_flag_that_there_is_not_is_told_at_its_key() {
    let job = "[[job]]\nname = \"b\"\nsource = \"tank/b\"\ntarget = \"t/b\"\nevery = \"1m\"\n";
    let told = mistakes(&format!("{job}compres = \"auto\"\nplain = \"yes\"\njson = true\n"));
    let expected = [
        "6:1: `compres` is neither a word of a job nor a flag of zferry replicate",
        "7:9: this is true or false",
        "8:1: `json` is neither a word of a job nor a flag of zferry replicate",
    ];
    assert_eq!(told, expected);
    let told = mistakes(&format!("{job}\n{job}"));
    assert_eq!(told, ["8:8: job b stands in line 2 already"]);
    let far = job.replace("tank/b", "host:tank/b") + "plain = true\nwritten = \"1GiB\"\n";
    let told = mistakes(&far);
    assert!(told[0].starts_with("1:1: with ssh there is a ticket"), "{told:#?}");
    assert!(told[1].starts_with("7:1: how much is written is seen"), "{told:#?}");
    assert_eq!(mistakes("job = 5"), ["1:1: each job is a table: [[job]]"]);
    assert!(mistakes("[[job]")[0].starts_with("1:"));
}

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
        "8:9: use a time such as 30s, 10m, 1h30m, 1d or 2w",
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
    let told = mistakes(&format!(
        "{job}compres = \"auto\"\nplain = \"yes\"\njson = true\nno-stream = true\n"
    ));
    let expected = [
        "6:1: `compres` is neither a word of a job nor a flag of zferry replicate",
        "7:9: this is true or false",
        "8:1: --json makes no sense in a job that runs by itself",
        "9:1: --no-stream is called `newest-only` here",
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

/// What a job is understood as behind these defaults.
fn with_defaults(defaults: &str, job: &str) -> Job {
    let text =
        format!("[defaults]\n{defaults}\n[[job]]\nname = \"a\"\nsource = \"tank/a\"\n{job}\n");
    let told = |mistakes| panic!("{mistakes:?} in {text}");
    Config::parse(&text).unwrap_or_else(told).jobs.pop().unwrap()
}

const HERE: &str = "target = \"backup/a\"\nevery = \"15m\"";

#[test]
fn a_default_that_cannot_be_meant_for_a_job_is_none_of_it() {
    let hour = "target = \"zferry://h/a\"\nevery = \"1h\"";
    for (default, typed, job, has_it) in [
        ("exclude-dataset = \"tmp\"", "tmp", HERE.to_owned(), false),
        ("exclude-dataset = \"tmp\"", "tmp", format!("{HERE}\nrecursive = true"), true),
        ("parallel = 63", "63", HERE.to_owned(), false),
        ("parallel = 63", "63", format!("{HERE}\nrecursive = true"), true),
        ("recursive = true\nparallel = 63", "63", HERE.to_owned(), true),
        ("recursive = true\nparallel = 63", "63", format!("{HERE}\nrecursive = false"), false),
        ("spool-max = \"77GiB\"", "82678120448", HERE.to_owned(), false),
        ("bwlimit = \"77MiB\"", "80740352", HERE.to_owned(), false),
        ("bwlimit = \"77MiB\"", "80740352", hour.to_owned(), true),
        ("plain = true", "plain: true", HERE.to_owned(), false),
        ("plain = true", "plain: true", hour.to_owned(), true),
        ("ssh-option = \"A=b\"", "A=b", HERE.to_owned(), false),
        ("far-command = \"A=b\"", "A=b", hour.to_owned(), false),
        ("ssh-port = 2222", "2222", hour.replace("zferry://h/a", "h:tank/a"), true),
    ] {
        let copy = format!("{:?}", with_defaults(default, &job).copy);
        assert_eq!(copy.contains(typed), has_it, "{default} with {job}: {copy}");
    }
    // What would have held a job back is never left out.
    let through = "every = \"1h\"\ntarget = \"h:tank/a\"\nvia-ssh = true";
    let text = format!(
        "[defaults]\nbwlimit = \"1MiB\"\n[[job]]\nname = \"a\"\nsource = \"tank/a\"\n{through}\n"
    );
    assert!(mistakes(&text)[0].contains("--bwlimit limits our own connections"));
}

#[test]
fn what_a_job_says_of_its_rhythm_is_all_that_counts() {
    let rhythm = |defaults, job| with_defaults(defaults, job).trigger.rhythm;
    let cron = "cron = \"0 3 * * * UTC\"";
    let every = |pause| Some(Duration::from_secs(pause));
    let pause = |rhythm| match rhythm {
        Some(Rhythm::Every(pause)) => Some(pause),
        _ => None,
    };
    assert_eq!(pause(rhythm(cron, HERE)), every(900));
    assert_eq!(pause(rhythm("every = \"1d\"", HERE)), every(900));
    let by_cron = format!("target = \"backup/a\"\n{cron}");
    assert!(matches!(rhythm("every = \"1d\"", &by_cron), Some(Rhythm::Cron(_))));
    let target = "target = \"backup/a\"";
    assert_eq!(pause(rhythm("every = \"1d\"", target)), every(86_400));
    // What was written is another thing: whichever is first.
    let job = with_defaults("every = \"1d\"", &format!("{target}\nwritten = \"1GiB\""));
    assert!(job.trigger.written.is_some() && job.trigger.rhythm.is_some());
    let far = "[defaults]\nwritten = \"1GiB\"\n[[job]]\nname = \"a\"\nsource = \"h:tank/a\"\n";
    let far = Config::parse(&format!("{far}{HERE}\n")).unwrap();
    assert!(far.jobs[0].trigger.written.is_none());
    assert_eq!(far.parallel.get(), 4, "one that takes days holds up no other");
}

#[test]
fn what_a_flag_needs_is_told_at_its_key() {
    let job = format!("[[job]]\nname = \"a\"\nsource = \"tank/a\"\n{HERE}\n");
    for (more, told) in [
        (
            "exclude-dataset = \"tmp\"",
            "6:1: `exclude-dataset` needs `recursive = true` in this job",
        ),
        ("parallel = 3", "6:1: `parallel` needs `recursive = true` in this job"),
        ("spool-max = \"1GiB\"", "6:1: `spool-max` needs a `spool` in this job"),
    ] {
        assert_eq!(mistakes(&format!("{job}{more}\n")), [told]);
    }
    // A mistake in what all jobs have is one mistake.
    let jobs = format!("{job}{}", job.replace("\"a\"", "\"b\""));
    let told = mistakes(&format!("[defaults]\ncompres = \"auto\"\n{jobs}"));
    let known = "2:1: `compres` is neither a word of a job nor a flag of zferry replicate";
    assert_eq!(told, [known]);
}

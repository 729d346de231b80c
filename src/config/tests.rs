use super::*;

fn config(text: &str) -> Config {
    load(text, Path::new("t.yaml")).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    load(text, Path::new("t.yaml")).expect_err(text).to_string()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = inspect(text, Path::new("t.yaml")).unwrap_or_else(|error| panic!("{error}"));
    loaded.warnings.iter().map(|warning| warning.message().to_owned()).collect()
}

#[test]
fn nothing_said_is_the_default() {
    for text in ["", "# only a comment\n", "---\n", "data:\n", "buffer: {}\n"] {
        assert_eq!(config(text), Config::default(), "{text:?}");
    }
}

#[test]
fn a_mistake_is_shown_where_it_stands() {
    let expected = "t.yaml:2:9: found \"20Gib\", expected a number of bytes with its unit, such as 512MiB or \
                    20GiB\n   |\n 2 |   disk: 20Gib\n   |         ^^^^^";
    assert_eq!(refusal("data:\n  disk: 20Gib\n"), expected);
}

#[test]
fn every_kind_of_mistake_has_its_place_and_its_expectation() {
    let table = [
        ("polices: []", "1:1: unknown key \"polices\", did you mean \"policies\"?"),
        ("data: { disc: 20GiB }", "1:9: unknown key \"disc\", did you mean \"disk\"?"),
        ("policies:\n  - name: a\n    kep: 1%", "3:5: unknown key \"kep\", did you mean \"keep\"?"),
        ("kafka: {}", "1:1: unknown key \"kafka\", expected receivers, data, buffer"),
        ("data: { path: x, sync: sometimes }", "1:24: unknown value \"sometimes\", expected none or always"),
        ("data: 5", "1:7: found \"5\", expected keys with values"),
        ("policies: all", "1:11: found \"all\", expected a list"),
        ("data: [1", "1:7: unclosed bracket"),
        ("buffer:\n  max_wait: 60s\n  max_wait: 60s", "3:3: the key \"max_wait\" stands here twice"),
        ("a: 1\n---\nb: 2\n", "3:1: a second document begins here"),
        ("policies: []", "1:11: found an empty list"),
        (
            "buffer: { after_root: 20s, max_wait: 10s }",
            "1:38: found 10s, expected at least after_root, which is 20s",
        ),
        ("buffer: { hindsight: 59s }", "1:22: found 59s, expected at least max_wait, which is 1m"),
        ("buffer: { memory: 1MiB }", "1:19: found 1MiB, expected at least 64MiB"),
        ("data: { path: \"\" }", "1:15: found an empty path, expected a folder"),
        ("exporters: { parquet: { roll: { age: 0s } } }", "1:38: found 0s, expected at least 1s"),
        (
            "data: { disk: 64MiB }\nexporters: { parquet: { roll: { size: 65MiB } } }",
            "2:39: found 65MiB, expected at most data.disk, which is 64MiB",
        ),
        ("buffer: { after_root: 2m }", "1:23: found 2m, expected at most max_wait, which is 1m"),
        ("buffer: { max_wait: 10m }", "1:21: found 10m, expected at most hindsight, which is 5m"),
        (
            "exporters: { parquet: { url: 's3://b', s3: { endpoint: minio } } }",
            "1:56: found \"minio\", expected a URL such as http://minio:9000",
        ),
        (
            "exporters: { parquet: { url: 's3://b', s3: { access_key_id: a } } }",
            "1:44: access_key_id and secret_access_key stand together",
        ),
        (
            "receivers: { otlp: { http: { cors: { allowed_origins: [shop.example] } } } }",
            "1:56: found \"shop.example\", expected an origin",
        ),
        (
            "receivers: { otlp: { http: { cors: { allowed_origins: ['https://a/'] } } } }",
            "1:56: found \"https://a/\", expected an origin",
        ),
        (
            "exporters: { otlp: [{ name: a, endpoint: 'http://localhost:4317' }] }",
            "1:42: this is receivers.otlp.grpc.listen of this instance",
        ),
        ("data: { disk: 1MiB }", "1:15: found 1MiB, expected at least 64MiB"),
        (
            "telemetry: { listen: \"0.0.0.0:4317\" }",
            "1:22: port 4317 is already taken by receivers.otlp.grpc",
        ),
        ("telemetry: { listen: \"8888\" }", "1:22: found \"8888\", expected host:port"),
        ("exporters: { parquet: { roll: { size: 4GiB } } }", "1:39: found 4GiB, expected at most 2GiB"),
        ("exporters: {}", "1:12: neither parquet nor otlp"),
        ("policies:\n  - { name: a, keep: 100/w }", "2:22: found `100/w`, expected a rate such as 100/s"),
        (
            "policies:\n  - name: a\n    keep: { share: 1%, at_most: 5MB }",
            "3:33: found `5MB`, expected a rate such as 100/s",
        ),
        (
            "policies:\n  - name: a\n    keep: { at_mots: 5/s }",
            "3:13: unknown key \"at_mots\", did you mean \"at_most\"?",
        ),
        (
            "policies:\n  - name: a\n    keep:\n      at_most: 5/s\n      per: [name, nam]",
            "5:19: found `nam`, expected a field or a value",
        ),
        ("policies:\n  - name: a\n    keep: { share: 1% }", "3:11: found a share without bounds"),
        ("policies:\n  - { name: a, keep: [5%] }", "2:16: found sequence, expected a share"),
        ("policies:\n  - { name: a, keep: 5%, shadow: true }", "2:3: found only shadow policies"),
        ("randomness: dice", "1:13: found \"dice\", expected trace_id, hash or { hash: KEY }"),
        ("randomness: { hush: x }", "1:15: unknown key \"hush\", did you mean \"hash\"?"),
        ("log: { level: \"a=b=c\" }", "1:15: found \"a=b=c\", expected a level"),
    ];
    for (text, expected) in table {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("t.yaml:{expected}")), "{refusal}\nexpected {expected}");
    }
}

#[test]
fn names_are_given_once() {
    let text = "policies:\n  - { name: a, keep: 5% }\n  - { name: a, keep: 5% }\n";
    assert!(refusal(text).starts_with("t.yaml:3:13: found `a` twice"));
    let text = "exporters:\n  otlp:\n    - { name: a, endpoint: \"http://a:4317\" }\n    - { name: a, endpoint: \
                \"http://b:4317\" }\n";
    assert!(refusal(text).starts_with("t.yaml:4:15: the name \"a\" is given twice"));
}

#[test]
fn all_contradictions_are_told_at_once() {
    let refusal = refusal("buffer: { memory: 1MiB, after_root: 20s, max_wait: 10s }\n");
    assert_eq!(refusal.matches("t.yaml:").count(), 2, "{refusal}");
}

#[test]
fn a_small_disk_needs_no_smaller_roll_size_than_the_default() {
    assert!(inspect("data: { disk: 64MiB }", Path::new("t.yaml")).is_ok());
}

#[test]
fn a_root_condition_is_refused_where_it_is_wrong() {
    let refusal = refusal("buffer: { root: '{ kind = servant }' }\n");
    assert!(refusal.starts_with("t.yaml:1:27: "), "{refusal}");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    assert!(refusal("receivers: { kafka: { brokers: [a] } }").contains("not supported yet"));
}

#[test]
fn randomness_is_the_traces_own_or_hashed_under_a_key() {
    let key = |text: &str| config(text).randomness.hash_key();
    assert_eq!(key("randomness: trace_id"), None);
    assert_eq!(key("randomness: hash"), key("randomness: { hash: tailwater }"));
    assert_ne!(key("randomness: hash"), key("randomness: { hash: another }"));
}

#[test]
fn a_keep_is_shown_as_it_is_meant() {
    let shown =
        |keep: &str| config(&format!("policies: [{{ name: a, keep: {keep} }}]")).policies[0].keep.to_string();
    assert_eq!(shown("50%"), "50%");
    assert_eq!(shown("2000 spans/s"), "100%, at most 2000 spans/s");
    assert_eq!(
        shown("{ share: 1%, at_least: 1/min, at_most: 5MB/s, per: [resource.service.name, name] }"),
        "1%, at least 1/min, at most 5000000B/s, per resource.service.name and name"
    );
}

#[test]
fn variables_are_filled_in_wherever_values_stand() {
    let environment = HashMap::from([("WAIT".to_owned(), "11s".to_owned())]);
    for text in [
        "buffer:\n  after_root: ${WAIT}",
        "buffer: { after_root: \"${WAIT}\" }",
        "buffer: { after_root: '${UNSET:-11s}' }",
        "buffer:\n  after_root: >-\n    ${WAIT}\n  max_wait: 60s # not ${UNSET}",
    ] {
        let loaded = inspect_with(text, Path::new("t.yaml"), environment.clone());
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.config.buffer.after_root.get().as_secs(), 11, "{text}");
    }
}

#[test]
fn places_stay_right_behind_a_variable() {
    let text = "data: { path: \"${UNSET:-/a/much/longer/path}\", disk: 20Gib }\n";
    assert!(refusal(text).starts_with("t.yaml:1:54: found \"20Gib\""), "{}", refusal(text));
    let text = "data:\n  disk: ${UNSET:-20Gib}\n";
    let expected = "t.yaml:2:9: found \"20Gib\", expected a number of bytes with its unit, such as 512MiB or \
                    20GiB\n   |\n 2 |   disk: ${UNSET:-20Gib}\n   |         ^^^^^^^^^^^^^^^";
    assert_eq!(refusal(text), expected);
}

#[test]
fn a_variable_that_is_not_set_is_told() {
    assert!(
        refusal("data:\n  path: ${TAILWATER_NO_SUCH}\n").starts_with("t.yaml:2:9: the environment variable")
    );
    let refusal = refusal("data: { path: ${TAILWATER_NO_SUCH} }\n");
    assert!(refusal.contains("stands in quotes"), "{refusal}");
}

#[test]
fn the_defaults_have_nothing_to_warn_of() {
    assert_eq!(warnings(""), Vec::<String>::new());
}

#[test]
fn a_drop_before_the_error_policy_is_warned_of() {
    let text = r#"
policies:
  - { name: health, match: '{ rootName = "GET /healthz" }', keep: 0% }
  - { name: errors, match: '{ status = error }', keep: 100% }
  - { name: rest, keep: 5% }
"#;
    let warnings = warnings(text);
    assert!(warnings[0].contains("before the error policy"), "{warnings:?}");
}

#[test]
fn a_drop_that_asks_about_any_span_is_warned_of() {
    let text = r#"
policies:
  - { name: cache, match: '{ name = "GET rootName" }', keep: 0% }
  - { name: rest, keep: 5% }
"#;
    let warnings = warnings(text);
    assert!(warnings[0].contains("drops a whole trace for any one span"), "{warnings:?}");
}

#[test]
fn a_policy_that_is_never_asked_is_warned_of() {
    let text = "policies:\n  - { name: rest, keep: 5% }\n  - { name: slow, slower_than: p95, keep: 100% }\n";
    assert!(warnings(text)[0].contains("never asked"));
}

#[test]
fn a_condition_is_refused_where_it_goes_wrong() {
    let places = [
        ("policies:\n  - { name: a, match: '{ stats = error }', keep: 5% }\n", "2:"),
        ("policies:\n  - name: a\n    match: \"{ name = `x` && }\"\n    keep: 5%\n", "3:"),
        (
            "policies:\n  - name: a\n    match: |\n      { status = error &&\n        && name = `x` }\n    keep: 5%\n",
            "5:",
        ),
    ];
    for (text, line) in places {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("t.yaml:{line}")), "{refusal}");
        assert!(!refusal.contains("column"), "{refusal}");
    }
}

#[test]
fn a_url_that_names_no_store_is_refused() {
    let refusal = refusal("exporters: { parquet: { url: \"ftp://bucket\" } }");
    assert!(
        refusal.starts_with("t.yaml:1:30: ") && refusal.contains("expected file: and a folder"),
        "{refusal}"
    );
}

fn in_folder(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_reference_is_the_default() {
    assert_eq!(config(&in_folder("reference.yaml")), Config::default());
}

#[test]
fn the_reference_names_every_key() {
    let reference = in_folder("reference.yaml");
    let listed = "receivers: { otlp: { ? } }|receivers: { otlp: { grpc: { ? } } }|receivers: { otlp: { http: { ? } } }|\
                  receivers: { otlp: { http: { cors: { ? } } } }|receivers: { otlp: { http: { tls: { ? } } } }|\
                  receivers: { otlp: { auth: { ? } } }|data: { ? }|buffer: { ? }|randomness: { ? }|policies: [{ ? }]|\
                  policies: [{ keep: { ? } }]|exporters: { ? }|\
                  exporters: { parquet: { ? } }|exporters: { parquet: { roll: { ? } } }|\
                  exporters: { parquet: { s3: { ? } } }|exporters: { otlp: [{ ? }] }|\
                  exporters: { otlp: [{ tls: { ? } }] }|telemetry: { ? }|log: { ? }|?";
    for section in listed.split('|') {
        let refusal = refusal(&section.replace('?', "no_such_key_at_all: 1"));
        let first = refusal.lines().next().unwrap();
        let (_, keys) = first.split_once("expected ").unwrap_or_else(|| panic!("{refusal}"));
        for key in keys.replace(" or ", ", ").split(", ").map(|key| key.trim_matches('"')) {
            assert!(reference.contains(key), "{key} of {section}");
        }
    }
}

#[test]
fn the_other_files_load_without_a_warning() {
    for name in ["tempo.yaml", "s3.yaml"] {
        let loaded = inspect_with(&in_folder(name), Path::new(name), HashMap::new());
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    }
}

#[test]
fn the_readme_shows_the_default_and_one_backend() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let shown = readme.split("```").filter_map(|block| block.strip_prefix("yaml\n")).next().unwrap();
    let mut shown = config(shown);
    assert_eq!(shown.exporters.otlp.pop().map(|otlp| otlp.name.to_string()).as_deref(), Some("tempo"));
    assert_eq!(shown, Config::default());
}

#[test]
fn what_this_machine_lacks_is_warned_of() {
    let found = warnings(
        "buffer: { memory: 1000TiB }\nreceivers: { otlp: { grpc: { tls: { cert_file: /no/c.pem, key_file: /no/k.pem } } } }",
    );
    assert!(found[0].starts_with("found 1000TiB, but there are only "), "{found:?}");
    assert!(found[1].starts_with("/no/c.pem cannot be read here: "), "{found:?}");
    assert!(found[2].starts_with("/no/k.pem cannot be read here: "), "{found:?}");
}

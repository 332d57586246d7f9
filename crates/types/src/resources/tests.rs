use super::*;

fn read(text: &str) -> Resources {
    parse(text).unwrap()
}

fn check_parse(text: &str, expected: &str) {
    let outcome = match parse(text) {
        Ok(resources) => {
            let texts: Vec<String> = resources
                .iter()
                .map(|entry| match entry.resource.as_ref().unwrap() {
                    Resource::NamedResourceSpec(unit) => format!("{}:{}", unit.kind, unit.value),
                    Resource::DiscreteResourceSpec(amount) => {
                        format!("{}={}", amount.kind, amount.value)
                    }
                })
                .collect();
            texts.join(" ")
        }
        Err(error) => format!("refused: {error}"),
    };
    assert!(outcome.starts_with(expected), "{text:?}: {outcome}");
}

#[test]
fn one_integer_is_an_amount_and_texts_are_named_units() {
    check_parse("ssd=4", "ssd=4");
    check_parse("ssd=0", "ssd=0");
    check_parse(" ssd = 4 , gpu = a ", "gpu:a ssd=4");
    check_parse("gpu=b,gpu=a,gpu=b", "gpu:a gpu:b");
    check_parse("gpu=4x", "gpu:4x");
    check_parse("\"gpu=a,b\",ssd=1", "gpu:a,b ssd=1");
    check_parse("\"gpu=a\"\"b\"", "gpu:a\"b");
    check_parse("", "");
    check_parse("ssd=9223372036854775807", "ssd=9223372036854775807");
    check_parse("ssd=1\n", "ssd=1");
}

#[test]
fn malformed_texts_are_refused_with_the_term_or_kind() {
    check_parse(
        "ssd",
        "refused: generic resource \"ssd\" is not of the form kind=value",
    );
    check_parse("ssd=1=2", "refused: generic resource \"ssd=1=2\"");
    check_parse("=1", "refused: generic resource \"=1\"");
    check_parse("ssd=", "refused: generic resource \"ssd=\"");
    check_parse("ssd=1,", "refused: generic resource \"\"");
    check_parse(
        "ssd=-1",
        "refused: generic resource ssd has the negative amount -1",
    );
    check_parse(
        "ssd=1,ssd=2",
        "refused: generic resource ssd must be either one amount",
    );
    check_parse(
        "ssd=1,ssd=a",
        "refused: generic resource ssd must be either one amount",
    );
    check_parse("ssd=1\ngpu=2", "refused: generic resources are one line");
    check_parse("\"ssd=1", "refused: a quote");
    check_parse("\"ssd=1\"x,gpu=2", "refused: a quote");
    check_parse("s\"sd=1", "refused: a quote");
    let long = format!("ssd={}", "x".repeat(TEXT_BYTES_MAX - 4));
    assert!(parse(&long).is_ok());
    assert_eq!(
        parse(&format!("{long}x")),
        Err(ResourceError::TooLong(TEXT_BYTES_MAX + 1))
    );
}

#[test]
fn the_text_form_round_trips() {
    for text in ["gpu=a,gpu=b,ssd=4", "ssd=4"] {
        assert_eq!(to_text(&read(text)), text);
    }
}

#[test]
fn reservations_are_amounts_of_zero_or_more() {
    assert_eq!(check_reservation(&[discrete("ssd", 0)]), Ok(()));
    assert_eq!(
        check_reservation(&[discrete("ssd", 1), named("gpu", "a")]),
        Err(ResourceError::NotDiscrete("gpu".to_owned()))
    );
    assert!(check_reservation(&[discrete("ssd", -1)]).is_err());
    assert!(check_reservation(&[v1::GenericResource::default()]).is_err());
}

#[test]
fn enough_compares_with_the_amount_or_the_number_of_units() {
    let available = read("ssd=4,gpu=a,gpu=b");
    for (kind, value, expected) in [
        ("ssd", 4, true),
        ("ssd", 5, false),
        ("gpu", 2, true),
        ("gpu", 3, false),
        ("fpga", 0, false),
        ("ssd", 0, true),
    ] {
        let enough = is_enough(&available, &discrete(kind, value));
        assert_eq!(enough, Ok(expected), "{kind} {value}");
    }
    assert!(is_enough(&available, &named("gpu", "a")).is_err());
}

#[test]
fn a_claim_takes_amounts_and_the_first_units_in_order() {
    let mut available = read("ssd=4,gpu=a,gpu=b,gpu=c");
    let taken = claim(&mut available, &[discrete("gpu", 2), discrete("ssd", 3)]);
    assert_eq!(to_text(&taken), "gpu=a,gpu=b,ssd=3");
    assert_eq!(to_text(&available), "gpu=c,ssd=1");
    let taken = claim(&mut available, &[discrete("ssd", 1), discrete("gpu", 2)]);
    assert_eq!(
        to_text(&taken),
        "ssd=1",
        "units are taken whole or not at all"
    );
    assert_eq!(
        to_text(&available),
        "gpu=c",
        "an amount of zero leaves the list"
    );
    assert!(claim(&mut available, &[discrete("gpu", 0), named("gpu", "c")]).is_empty());
    assert_eq!(to_text(&available), "gpu=c");
}

#[test]
fn consuming_takes_exactly_what_a_task_has() {
    let mut available = read("ssd=4,gpu=a,gpu=b");
    consume(&mut available, &read("gpu=b,ssd=1"));
    assert_eq!(to_text(&available), "gpu=a,ssd=3");
    consume(&mut available, &read("gpu=x,ssd=9,fpga=1"));
    assert_eq!(to_text(&available), "gpu=a");
}

fn check_reclaim(available: &str, assigned: &str, described: &str, expected: &str) {
    let mut list = read(available);
    reclaim(&mut list, &read(assigned), &read(described));
    let mut texts: Vec<String> = list
        .iter()
        .map(|entry| to_text(std::slice::from_ref(entry)))
        .collect();
    texts.sort();
    assert_eq!(
        texts.join(","),
        expected,
        "{available} + {assigned} of {described}"
    );
}

#[test]
fn what_comes_back_is_kept_within_the_description() {
    check_reclaim("ssd=1", "ssd=3", "ssd=4", "ssd=4");
    check_reclaim("", "ssd=3", "ssd=4", "ssd=3");
    check_reclaim("gpu=a", "gpu=b", "gpu=a,gpu=b", "gpu=a,gpu=b");
    check_reclaim("gpu=a", "gpu=a", "gpu=a,gpu=b", "gpu=a");
    check_reclaim("ssd=1", "ssd=4", "ssd=4", "ssd=4");
    check_reclaim("gpu=a", "gpu=x", "gpu=a,gpu=b", "gpu=a");
    check_reclaim("ssd=1", "gpu=a", "ssd=1", "ssd=1");
    check_reclaim("gpu=a", "gpu=b", "gpu=4", "gpu=4");
    check_reclaim("gpu=1", "gpu=3", "gpu=a,gpu=b", "gpu=a,gpu=b");
}

#[test]
fn a_list_has_a_resource_in_the_same_form_only() {
    let available = read("ssd=4,gpu=a");
    for (wanted, expected) in [
        (discrete("ssd", 4), true),
        (discrete("ssd", 5), false),
        (named("gpu", "a"), true),
        (named("gpu", "b"), false),
        (discrete("gpu", 1), false),
        (named("ssd", "4"), false),
        (v1::GenericResource::default(), false),
    ] {
        assert_eq!(has_resource(&available, &wanted), expected, "{wanted:?}");
    }
}

#[test]
fn executors_export_values_by_kind() {
    let variables = environment(&read("gpu=a,gpu=b,ssd=2"));
    let texts: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        texts.join(" "),
        "DOCKER_RESOURCE_GPU=a,b DOCKER_RESOURCE_SSD=2"
    );
}

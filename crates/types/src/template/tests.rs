mod garbage;
mod payloads;

use super::*;

/// A dot with one of everything.
fn dot() -> Value {
    let labels = BTreeMap::from([
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "<2>".to_owned()),
    ]);
    Value::Struct(std::sync::Arc::new([
        ("Name", "web".into()),
        ("Slot", Value::Int(3)),
        ("Empty", "".into()),
        ("Labels", Value::from(&labels)),
    ]))
}

fn expand(source: &str) -> Result<String, String> {
    let template = Template::parse("t", source.as_bytes().to_vec(), Functions::Basic)
        .map_err(|error| error.to_string())?;
    let data = dot();
    let scope = Scope {
        data: &data,
        lookup: None,
    };
    let expansion = template
        .expand(scope, 1000)
        .map_err(|error| error.to_string())?;
    String::from_utf8(expansion.text.to_vec()).map_err(|error| error.to_string())
}

#[track_caller]
fn check(source: &str, wanted: &str) {
    assert_eq!(expand(source).as_deref(), Ok(wanted), "{source}");
}

#[track_caller]
fn refuse(source: &str, wanted: &str) {
    let error = expand(source).unwrap_err();
    assert!(error.contains(wanted), "{source}: {error}");
}

#[test]
fn fields_maps_and_constants_print_as_in_go() {
    check("plain } text {", "plain } text {");
    check("{{.Name}}-{{ .Slot }}", "web-3");
    check("{{.Labels.a}}", "1");
    check("{{.Labels}}", "map[a:1 b:<2>]");
    check("{{.}}", "{web 3  map[a:1 b:<2>]}");
    check(r#"{{"a\n\"\x41\u00e9\101"}}{{`r\n`}}"#, "a\n\"AéAr\\n");
    check(
        "{{1}} {{-2}} {{0x1F}} {{0b11}} {{017}} {{1_000}} {{'a'}}",
        "1 -2 31 3 15 1000 97",
    );
    check(
        "{{1.5}} {{1e3}} {{1e21}} {{0.00001}} {{true}}",
        "1.5 1000 1e+21 1e-05 true",
    );
    check("{{(.Labels).b}}", "<2>");
}

#[test]
fn trim_markers_and_comments_take_space_away() {
    check("a  {{- .Name -}}  b", "awebb");
    check("a {{/* x }} */}} b", "a  b");
    check("a {{- /* x */ -}} b", "ab");
    check("{{-3}}", "-3");
    check("a\n\t{{- \"b\" }}\n", "ab\n");
}

#[test]
fn branches_follow_truth() {
    check("{{if .Name}}y{{else}}n{{end}}", "y");
    check("{{if .Empty}}y{{else if .Slot}}s{{else}}n{{end}}", "s");
    check("{{if .Empty}}y{{end}}", "");
    check("{{with .Labels}}{{.a}}{{$.Name}}{{end}}", "1web");
    check("{{with .Empty}}y{{else}}{{.Name}}{{end}}", "web");
    check("{{with .Empty}}y{{else with .Slot}}{{.}}{{end}}", "3");
    check("{{with $x := .Slot}}{{$x}}{{end}}", "3");
}

#[test]
fn ranges_go_over_maps_in_order_and_over_counts() {
    check("{{range .Labels}}[{{.}}]{{end}}", "[1][<2>]");
    check(
        "{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}",
        "a=1;b=<2>;",
    );
    check("{{range $i := 3}}{{$i}}{{end}}", "012");
    check("{{range 0}}x{{else}}none{{end}}", "none");
    check(
        "{{range $i := 9}}{{if eq $i 2}}{{continue}}{{end}}\
         {{if gt $i 3}}{{break}}{{end}}{{$i}}{{end}}",
        "013",
    );
    check("{{$n := 0}}{{range $i := 4}}{{$n = $i}}{{end}}{{$n}}", "3");
    refuse(
        "{{range .Name}}{{end}}",
        "range can't iterate over a string",
    );
}

#[test]
fn pipelines_hand_their_value_on_as_the_last_argument() {
    check(r#"{{.Name | printf "%s-%d-%s" "x" 2 | len}}"#, "7");
    check(r#"{{"a" | print "b" | print "c"}}"#, "cba");
    check(r#"{{(print .Name "!") | len}}"#, "4");
}

#[test]
fn functions_do_what_those_of_go_do() {
    check(r#"{{.Name | printf "<%s>"}}"#, "<web>");
    check(r#"{{join "," .Name "x" "y"}}{{join "-"}}"#, "web,x,y");
    check(
        r#"{{index .Labels "a"}}{{index .Labels "none"}}{{index .Name 0}}"#,
        "1119",
    );
    check(
        r#"{{slice .Name 1}} {{slice .Name 0 2}} {{len .Name}} {{len .Labels}}"#,
        "eb we 3 2",
    );
    check(
        r#"{{eq .Name "x" "web"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}}"#,
        "true true true true true false",
    );
    check(
        r#"{{and .Name .Empty .Nope}}|{{or .Empty .Name .Nope}}|{{not .Slot}}"#,
        "|web|false",
    );
    check(r#"{{print 1 2 "a" 3}} {{println "a" 1}}"#, "1 2a3 a 1\n");
    check(
        r#"{{html .Labels.b}} {{urlquery "a b&c"}} {{js "'<"}}"#,
        "&lt;2&gt; a+b%26c \\'\\u003C",
    );
    refuse(r#"{{eq .Name 1}}"#, "incompatible types for comparison");
    refuse(r#"{{slice .Name 4}}"#, "out of range");
    refuse(r#"{{index .Name 3}}"#, "out of range");
    refuse(r#"{{len .Slot}}"#, "len: an integer has no length");
}

#[test]
fn printf_knows_the_verbs_that_fit() {
    check(
        r#"{{printf "%5d|%-5d|%05d|%+d|%x|%#X" 42 42 42 42 255 255}}"#,
        "   42|42   |00042|+42|ff|0XFF",
    );
    check(
        r#"{{printf "%5s|%-5s|%.2s|%q|%x" "ab" "ab" "abc" "a\"\n" "ab"}}"#,
        "   ab|ab   |ab|\"a\\\"\\n\"|6162",
    );
    check(
        r#"{{printf "%v %t %c %.2f %e %%" 1.5 true 'é' 2.0 1500.0}}"#,
        "1.5 true é 2.00 1.500000e+03 %",
    );
    refuse(
        r#"{{printf "%d" "a"}}"#,
        "the verb %d does not fit a string",
    );
    refuse(r#"{{printf "%s"}}"#, "more verbs than values");
    refuse(r#"{{printf "x" 1}}"#, "more values than verbs");
    refuse(r#"{{printf "%99999s" "a"}}"#, "width or precision");
}

#[test]
fn templates_can_be_defined_and_called() {
    check(
        r#"{{define "x"}}<{{.}}>{{end}}{{template "x" .Name}}{{template "x" 1}}"#,
        "<web><1>",
    );
    check(r#"{{block "x" .Slot}}{{.}}{{end}}"#, "3");
    check(r#"{{define "x"}}x{{end}}{{template "x"}}"#, "x");
    refuse(r#"{{template "y"}}"#, "template \"y\" not defined");
    refuse(
        r#"{{define "x"}}{{.Name}}{{end}}{{template "x"}}"#,
        "there is no field Name",
    );
    refuse(
        r#"{{if 1}}{{define "x"}}{{end}}{{end}}"#,
        "inside of another action",
    );
}

#[test]
fn what_is_missing_is_an_error_with_its_place() {
    assert_eq!(
        expand("one\n {{.Nope}}").unwrap_err(),
        "template t:2:4: there is no field Nope; there are Name, Slot, Empty, Labels"
    );
    refuse(
        "{{.Labels.none}}",
        "t:1:3: map has no entry for key \"none\"",
    );
    refuse("{{.Name.x}}", "can't evaluate field x in a string");
    refuse("{{.Name 1}}", "cannot be given arguments");
}

#[test]
fn malformed_templates_are_refused_with_their_place() {
    for (source, wanted) in [
        ("{{", "t:1:1: unclosed action"),
        ("a{{.Name", "t:1:2: unclosed action"),
        ("{{}}", "missing value for an action"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .Name}}", "{{if}} has no {{end}}"),
        ("{{if .Name}}{{else}}{{else}}{{end}}", "a second {{else}}"),
        ("{{nope}}", "function \"nope\" not defined"),
        ("{{env \"A\"}}", "function \"env\" not defined"),
        ("{{$x}}", "undefined variable \"$x\""),
        ("{{if $x := 1}}{{end}}{{$x}}", "undefined variable \"$x\""),
        ("{{break}}", "outside {{range}}"),
        ("{{.Name | 1}}", "non executable command"),
        ("{{.Name |}}", "missing command"),
        ("{{(.Name}}", "unexpected token in a parenthesis"),
        ("{{.Name)}}", "unexpected token"),
        ("{{\"a}}", "unterminated quoted string"),
        ("{{`a}}", "unterminated raw quoted string"),
        ("{{/* a}}", "unclosed comment"),
        ("{{/* a */ b}}", "comment ends before closing delimiter"),
        ("{{'ab'}}", "malformed character constant"),
        ("{{0x}}", "malformed number"),
        ("{{9999999999999999999x}}", "malformed number"),
        ("{{#}}", "bad character"),
        ("{{.a#}}", "bad character"),
        ("{{\"\\q\"}}", "unknown escape"),
        ("{{nil}}", "nil is not a command"),
        ("{{1.x}}", "malformed number"),
    ] {
        refuse(source, wanted);
    }
}

#[test]
fn depth_steps_work_and_output_are_bounded() {
    refuse(&"{{if 1}}".repeat(200), "nested more than 100 deep");
    refuse(
        &format!("{{{{{}1{}}}}}", "(".repeat(200), ")".repeat(200)),
        "nested more than 100",
    );
    refuse(
        r#"{{define "x"}}{{template "x"}}{{end}}{{template "x"}}"#,
        "nested more than 100",
    );
    refuse("{{range 1000000000}}{{end}}", "more than 100000 steps");
    refuse(
        "{{range 1000}}ab{{end}}",
        "the result has more than 1000 bytes",
    );
    let doubling = r#"{{$x := "0123456789abcdef"}}{{range 40}}{{$x = print $x $x}}{{end}}"#;
    refuse(doubling, "its functions move more than 67108864 bytes");
}

#[test]
fn the_fields_of_one_spec_share_steps_and_bytes() {
    use swarm_api::v1;
    let container = |fields: usize, template: &str| v1::ContainerSpec {
        env: (0..fields)
            .map(|number| format!("A{number}={template}"))
            .collect(),
        ..Default::default()
    };
    let steps = "{{range 10000}}{{end}}";
    assert!(task::rehearse(&container(5, steps), None).is_ok());
    let error = task::rehearse(&container(5_000, steps), None).unwrap_err();
    assert!(error.to_string().contains("env A"), "{error}");
    assert!(error.message.contains("100000 steps"), "{error}");
    let annotations = v1::Annotations {
        labels: [("a".to_owned(), "x".repeat(60_000))].into(),
        ..Default::default()
    };
    let bytes = "{{.Service.Labels.a}}";
    assert!(task::rehearse(&container(5, bytes), Some(&annotations)).is_ok());
    let error = task::rehearse(&container(5_000, bytes), Some(&annotations)).unwrap_err();
    assert!(error.message.contains("bytes"), "{error}");
    // A look-up of a variable among many is paid for as well.
    let many: String = (0..5_000).map(|n| format!("{{{{$v{n} := 1}}}}")).collect();
    let far = format!("{many}{{{{range 20000}}}}{{{{$v0}}}}{{{{end}}}}");
    refuse(&far, "bytes");
}

#[test]
fn only_two_braces_make_a_template() {
    assert!(is_template(b"a{{b"));
    assert!(!is_template(b"a{b{"));
    assert!(!is_template(b""));
}

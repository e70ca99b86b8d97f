//! Bad text maps are refused with line, column and reason.

use cairn_crush::text::{Reason, compile};

/// Devices, types and a host; the map under test goes on from line 8.
const BASE: &str = "\
device 0 osd.0 class hdd
device 1 osd.1
type 0 osd
type 1 host
type 2 rack
type 10 root
host a { id -2 alg straw2 hash 0 item osd.0 weight 1.0 item osd.1 weight 2.0 }
";

/// A root over the host, on line 8.
const ROOT: &str = "root r { id -1 alg straw2 hash 0 item a weight 3.0 }\n";

/// Where and why a map is refused.
fn refused(text: &str) -> String {
    match compile(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn after_base(text: &str) -> String {
    refused(&format!("{BASE}{text}"))
}

fn rule(steps: &str) -> String {
    let rule = "rule x { id 0 type replicated min_size 1 max_size 10";
    after_base(&format!("{ROOT}{rule}\n{steps}\n}}\n"))
}

#[test]
fn the_base_itself_compiles() {
    let steps = "step take r class hdd step chooseleaf firstn 0 type host step emit";
    let rule = format!("rule x {{ id 0 type replicated min_size 1 max_size 10 {steps} }}");
    compile(&format!("{BASE}{ROOT}{rule}")).unwrap();
}

#[test]
fn grammar() {
    assert_eq!(refused("device osd.0"), "1:8: expected a device number, found 'osd.0'");
    assert_eq!(refused("type 0 osd\n  tunable x -3"), "2:13: expected a value, found '-3'");
    assert_eq!(refused("# é\ndevice 0 é"), "2:10: the character 'é' has no meaning here");
    assert_eq!(
        after_base("root r {\n\tid -1\n\talg straw2\n\titem a weight 1.0 foo\n}"),
        "11:20: expected item or '}', found 'foo'"
    );
    assert_eq!(after_base("root r { id -1"), "8:15: expected alg, found the end of the map");
    assert_eq!(after_base("root r { id 3 alg straw2 }"), "8:13: a bucket id must be negative, 3 is not");
    assert_eq!(
        after_base("device 2 osd.2"),
        "8:1: 'device' must come before the first bucket and the first rule"
    );
    assert_eq!(
        after_base("rule x { id 0 type replicated min_size 1 max_size 2 step emit }\nroot r { alg straw2 }"),
        "9:1: buckets must be defined before rules"
    );
    assert_eq!(rule("step wait"), "10:6: unknown step 'wait'");
    assert!(rule("step set_msr_descents 3").contains("10:6: 'set_msr_descents' belongs to the MSR rules"));
    assert_eq!(refused("tunable foo 3"), "1:9: unknown tunable 'foo'");
    assert_eq!(refused("device 99999999999 osd.0"), "1:8: the number 99999999999 is too large here");
    assert_eq!(refused("tunable chooseleaf_vary_r 300"), "1:27: the number 300 is too large here");
}

#[test]
fn unknown_names() {
    assert_eq!(after_base("row r { id -1 alg straw2 }"), "8:1: the type 'row' is not defined");
    assert_eq!(
        after_base("osd r { id -1 alg straw2 }"),
        "8:1: a bucket cannot have the type 'osd', which is the devices'"
    );
    assert_eq!(after_base("root r { id -1 alg straw2 item osd.9 }"), "8:32: the item 'osd.9' is not defined");
    assert_eq!(
        after_base("root r { id -1 alg straw3 }"),
        "8:20: unknown bucket algorithm 'straw3': use straw2 (or uniform, list, tree, straw)"
    );
    assert_eq!(
        after_base("root r { id -1 alg straw2 hash 7 }"),
        "8:32: unknown hash '7': the only one is 0, rjenkins1"
    );
    assert_eq!(rule("step take default"), "10:11: the item 'default' is not defined");
    assert_eq!(rule("step take r class ssd"), "10:19: there is no device class 'ssd'");
    assert_eq!(rule("step take osd.0 class hdd"), "10:23: 'osd.0' has no shadow tree for class 'hdd'");
    assert_eq!(rule("step take r step choose firstn 0 type row"), "10:39: the type 'row' is not defined");
}

#[test]
fn duplicates() {
    assert_eq!(refused("device 0 a\ndevice 1 a"), "2:10: the device 'a' is already defined");
    assert_eq!(refused("device 0 a\ndevice 0 b"), "2:8: the device 0 is already taken by 'a'");
    assert_eq!(refused("type 0 a\ntype 1 a"), "2:8: the type 'a' is already defined");
    assert_eq!(refused("type 0 a\ntype 0 b"), "2:6: the type 0 is already taken by 'a'");
    assert_eq!(after_base("rack a { alg straw2 }"), "8:6: the bucket or device 'a' is already defined");
    assert_eq!(
        after_base("rack osd.1 { alg straw2 }"),
        "8:6: the bucket or device 'osd.1' is already defined"
    );
    assert_eq!(after_base("rack b { id -2 alg straw2 }"), "8:13: the bucket id -2 is already taken by 'a'");
    assert_eq!(
        after_base("rack b { id -3 id -2 class hdd alg straw2 }"),
        "8:19: the shadow bucket id -2 is already taken by 'a'"
    );
    assert_eq!(after_base("rack b { id -3 id -4 alg straw2 }"), "8:19: the bucket has an id already");
    assert_eq!(
        after_base("rack b { id -3 alg straw2 item a item a }"),
        "8:39: the item 'a' is in this bucket already"
    );
    let rule = "rule x { id 0 type replicated min_size 1 max_size 2 step take a step choose firstn 0 type osd step emit }\n";
    assert_eq!(after_base(&[rule, rule].concat()), "9:6: the rule 'x' is already defined");
    let other = rule.replace("rule x", "rule y");
    assert_eq!(after_base(&format!("{rule}{other}")), "9:13: the rule number 0 is already taken by 'x'");
}

#[test]
fn cycles_and_order() {
    assert_eq!(
        after_base(
            "rack b { id -3 alg straw2 item c }\nrack c { id -4 alg straw2 item d }\nrack d { id -5 alg straw2 item b }"
        ),
        "10:32: the buckets hold each other in a cycle: b → c → d → b"
    );
    assert_eq!(
        after_base("rack b { id -3 alg straw2 item b }"),
        "8:32: the buckets hold each other in a cycle: b → b"
    );
    // One swap mends the order, as in Ceph; a rotation it does not.
    compile(&format!("{BASE}rack b {{ alg straw2 item c }}\nrack c {{ alg straw2 item a }}")).unwrap();
    let text = "rack b { alg straw2 item c }\nrack c { alg straw2 item d }\nrack d { alg straw2 item a }";
    assert_eq!(after_base(text), "9:26: the bucket 'd' must be defined before 'c', which holds it");
}

#[test]
fn weights_and_positions() {
    let item = |item: &str| after_base(&format!("rack b {{ id -3 alg straw2 item {item} }}"));
    assert_eq!(item("osd.0 weight -1.0"), "8:45: the weight -1.0 is negative");
    assert_eq!(item("osd.0 weight -0"), "8:45: the weight -0 is negative");
    assert_eq!(item("osd.0 weight nan"), "8:45: expected a weight, found 'nan'");
    assert_eq!(
        item("osd.0 weight 100.1"),
        "8:45: the weight is 100.09999; the weight of a device is limited to 100"
    );
    assert_eq!(item("a weight 1e30"), "8:41: the number 1e30 is too large here");
    assert_eq!(
        item(
            "a weight 65000 item osd.0 weight 100 item osd.1 weight 100\n } rack c { alg straw2 item a weight 65000 item b weight 65000"
        ),
        "9:49: the weights of the items of 'c' add up to more than 65535; lower them"
    );
    assert_eq!(item("osd.0 pos 2 item osd.1"), "8:42: the position 2 is beyond the bucket's 2 items");
    assert_eq!(item("osd.0 pos 1 item osd.1 pos 1"), "8:59: the position 1 is occupied");
    assert_eq!(
        after_base("rack b { id -3 alg uniform item osd.0 weight 1 item osd.1 weight 2 }"),
        "8:66: the item has weight 2.00000, the ones before it 1.00000: the items of a uniform bucket must all have the same weight"
    );
    let devices: String = (0..65).map(|id| format!("device {id} osd.{id}\n")).collect();
    let items: String = (0..65).map(|id| format!(" item osd.{id} weight 1")).collect();
    assert_eq!(
        refused(&format!("{devices}type 1 root\nroot r {{ alg tree{items} }}")),
        "67:14: a tree bucket holds at most 64 items, this one has 65: use straw2 or split it"
    );
}

#[test]
fn rules_that_can_never_be_satisfied() {
    let never = "the rule can never be satisfied";
    assert_eq!(
        rule("step choose firstn 0 type osd step emit"),
        format!("10:1: {never}: nothing is taken before this step")
    );
    assert_eq!(
        rule("step take r step chooseleaf firstn 0 type rack step emit"),
        format!("10:13: {never}: there is no rack below 'r'")
    );
    assert_eq!(
        rule("step take r\nstep choose firstn 0 type host\nstep emit"),
        format!("12:1: {never}: it emits host, not devices")
    );
    assert_eq!(rule("step take r\nstep emit"), format!("11:1: {never}: it emits root, not devices"));
    assert_eq!(
        rule("step take r\nstep choose firstn 0 type osd"),
        format!("11:1: {never}: it does not end with emit")
    );
    // A hierarchy without devices cannot satisfy it yet.
    compile("type 0 osd type 1 host type 2 root root r { alg straw2 } rule x { id 0 type replicated step take r step chooseleaf firstn 0 type host step emit }").unwrap();
}

#[test]
fn choose_args() {
    let args = |args: &str| after_base(&format!("{ROOT}choose_args 3 {{ {args} }}"));
    assert_eq!(args("{ bucket_id -7 }"), "9:29: there is no bucket -7");
    assert_eq!(
        args("{ bucket_id -2 weight_set [ [ 1 2 ] [ 1 ] ] }"),
        "9:53: bucket -2 has 2 items and needs as many weights, not 1"
    );
    assert_eq!(args("{ bucket_id -2 ids [ ] }"), "9:32: bucket -2 has 2 items and needs as many ids, not 0");
    assert_eq!(
        args("{ bucket_id -2 } { bucket_id -2 }"),
        "9:46: the choose_args entry for bucket -2 is already taken by 'a'"
    );
    assert_eq!(
        args("} choose_args 3 {"),
        "9:31: the choose_args id 3 is already taken by 'an earlier block'"
    );
}

#[test]
fn ids_beyond_their_bounds() {
    assert!(matches!(
        compile("type 1 root root r { id -2000000000 alg straw2 }").unwrap_err().reason,
        Reason::IdOutOfRange { id: -2_000_000_000, .. }
    ));
    assert!(matches!(compile("device 2000000000 osd").unwrap_err().reason, Reason::IdOutOfRange { .. }));
    assert!(matches!(compile("type 70000 root").unwrap_err().reason, Reason::IdOutOfRange { .. }));
}

use bytes::Bytes;

use super::log::{Did, seal, unseal};
use super::random::{Happening, Subject, life, spec};
use super::*;

/// The log of a life, as an edge writes it.
fn log(spec: &RuleSpec, life: Vec<(u64, Happening)>) -> Vec<Bytes> {
    let mut subject = Subject::new(spec);
    let mut lines = vec![scribe(&subject).load(&subject.state)];
    let mut said = None;
    for (after, happening) in life {
        subject.pass(after);
        let before = subject.state.clone();
        match happening {
            Happening::Report { input, value, quality, age } => subject.report(input, value, quality, age),
            Happening::Restart => {
                subject.restart();
                said = None;
                lines.push(scribe(&subject).load(&subject.state));
            }
            Happening::Reset => {
                let seen = subject.seen(false);
                if subject.reset() {
                    lines.push(scribe(&subject).reset(&seen, &before, &subject.state));
                }
            }
            Happening::Evaluate { anew } => {
                let seen = subject.seen(anew);
                let made = subject.evaluate(anew);
                if said.as_ref() != Some(&made) || before != subject.state {
                    lines.push(scribe(&subject).evaluated(&seen, &made, &before, &subject.state));
                }
                said = Some(made);
            }
        }
    }
    lines
}

fn scribe(subject: &Subject) -> Scribe<'_> {
    Scribe { rule: "water/fill", program: &subject.program, now: subject.now }
}

/// Three evaluations of one rule whose decision follows its input.
fn short() -> Vec<Bytes> {
    let document = "
inputs: {level: {device: t, property: l, maxAge: 10s}}
output: {device: d, property: p, ttl: 1s}
onUnknown: hold
cases: [{name: follow, then: {value: {input: level, gain: 3}}}]
";
    let program = Program::new(rule(document).unwrap(), Counting::default());
    let mut state = RuleState::default();
    let scribe = |now| Scribe { rule: "water/fill", program: &program, now };
    let mut lines = vec![scribe(seconds(0)).load(&state)];
    for (at, level) in [(1, 0.1), (2, 0.2), (3, 1e300)] {
        let before = state.clone();
        let seen = seen(&program, &BTreeMap::from([("level", good(level))]));
        let made = evaluate(&program, &seen, seconds(at), &mut state);
        lines.push(scribe(seconds(at)).evaluated(&seen, &made, &before, &state));
    }
    lines
}

fn found(lines: &[impl AsRef<[u8]>]) -> Vec<(u64, What)> {
    replay(lines).findings.into_iter().map(|finding| (finding.line, finding.what)).collect()
}

#[test]
fn a_line_says_all_that_was_seen_and_done() {
    let line = String::from_utf8(short()[1].to_vec()).unwrap();
    let (content, sum) = line.split_once(",\"sum\":").unwrap();
    assert_eq!(
        content,
        concat!(
            r#"{"rule":"water/fill","spec":"85cf523e73b45016","at":1000000,"wall":10000,"#,
            r#""did":{"evaluate":{"step":{"before":{"tests":[]},"#,
            r#""readings":{"level":{"value":0.1,"quality":"good","age":0}},"#,
            r#""after":{"began":1000000,"tests":[]}},"#,
            r#""made":{"decision":{"set":{"value":0.30000000000000004,"cause":"follow"}},"by":{"case":0}}}}"#,
        )
    );
    assert_eq!(sum.len(), r#""0123456789abcdef"}"#.len());
}

#[test]
fn a_log_replays_and_what_is_missing_is_told_from_what_is_wrong() {
    let lines = short();
    let replayed = replay(&lines);
    assert_eq!(replayed, Replay { lines: 4, heads: 1, evaluations: 3, ..Replay::default() });
    assert!(replayed.is_faithful());
    assert_eq!(found(&[&lines[0], &lines[2]]), [(2, What::Gap)]);
    assert_eq!(found(&lines[1..]), [(1, What::Headless), (2, What::Headless), (3, What::Headless)]);
    let torn = lines[3].slice(..lines[3].len() - 3);
    assert_eq!(found(&[&lines[0], &lines[1], &lines[2], &torn]), [(4, What::Unreadable)]);
    assert_eq!(found(&[b"".as_slice(), b"\n", b"{}\n"]), [(3, What::Unreadable)]);
}

/// With a sum that is right: whoever wrote it meant it.
fn forged(line: &Bytes, from: &str, to: &str) -> Bytes {
    let text = String::from_utf8(line.to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    let (line, is_sound) = unseal(text.replacen(from, to, 1).as_bytes()).unwrap();
    assert!(!is_sound);
    seal(&line)
}

#[test]
fn another_decision_memory_or_document_than_the_inputs_lead_to_is_found() {
    let lines = short();
    let with = |at: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        lines[at] = forged(&lines[at], from, to);
        found(&lines)
    };
    assert_eq!(with(1, "\"value\":0.1,", "\"value\":0.11,"), [(2, What::Decision)]);
    assert_eq!(
        with(2, "\"after\":{\"began\":1000000", "\"after\":{\"began\":1000001"),
        [(3, What::Memory), (4, What::Gap)]
    );
    assert_eq!(with(0, "\"gain\":3.0", "\"gain\":4.0")[0], (1, What::Document));
    assert_eq!(with(0, "\"ttl\":\"1s\"", "\"ttl\":\"0s\"")[0], (1, What::Document));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_random_life_replays_byte_for_byte_and_one_changed_bit_does_not(
        spec in spec(),
        life in life(1..60),
        (line, bit) in (any::<prop::sample::Index>(), 0u32..52),
    ) {
        let lines = log(&spec, life);
        let replayed = replay(&lines);
        prop_assert_eq!(&replayed.findings, &[], "{:?}", lines);
        prop_assert_eq!(replayed.lines, lines.len() as u64);
        for line in &lines {
            let (read, is_sound) = unseal(line).unwrap();
            prop_assert!(is_sound);
            prop_assert_eq!(&seal(&read), line);
        }
        // One bit of one value of one reading, where there is one.
        let readings = "\"readings\":{\"";
        let with_reading = |line: &Bytes| line.windows(readings.len()).any(|w| w == readings.as_bytes());
        let candidates: Vec<usize> = (0..lines.len()).filter(|at| with_reading(&lines[*at])).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let at = candidates[line.index(candidates.len())];
        let text = String::from_utf8(lines[at].to_vec()).unwrap();
        let value = text.find(readings).map(|at| at + text[at..].find("\"value\":").unwrap() + 8).unwrap();
        let (head, (number, rest)) = (&text[..value], text[value..].split_once(',').unwrap());
        let changed = f64::from_bits(number.parse::<f64>().unwrap().to_bits() ^ (1 << bit));
        let mut altered: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        altered[at] = format!("{head}{changed:?},{rest}").into_bytes();
        let replayed = replay(&altered);
        prop_assert!(replayed.divergences > 0);
        prop_assert!(replayed.findings.iter().all(|finding| finding.line == at as u64 + 1));
        prop_assert!(matches!(unseal(&altered[at]).unwrap().0.did, Did::Evaluate(_) | Did::Reset(_) | Did::Load(_)));
    }
}

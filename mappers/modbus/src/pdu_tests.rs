use super::*;
use proptest::prelude::*;

/// The examples of the specification, §6.
fn examples() -> Vec<(Request, Vec<u8>, Vec<u8>, Answer)> {
    let bits = |text: &str| text.bytes().map(|b| u16::from(b == b'1')).collect();
    let read = |table, start, count| Request::Read { table, start, count };
    vec![
        (
            read(Table::Coil, 0x13, 0x13),
            vec![1, 0, 0x13, 0, 0x13],
            vec![1, 3, 0xcd, 0x6b, 5],
            Answer::Words(bits("1011001111010110101")),
        ),
        (
            read(Table::Holding, 0x6b, 3),
            vec![3, 0, 0x6b, 0, 3],
            vec![3, 6, 2, 0x2b, 0, 0, 0, 0x64],
            Answer::Words(vec![0x22b, 0, 0x64]),
        ),
        (read(Table::Input, 8, 1), vec![4, 0, 8, 0, 1], vec![4, 2, 0, 10], Answer::Words(vec![10])),
        (
            Request::WriteCoil { at: 0xac, on: true },
            vec![5, 0, 0xac, 0xff, 0],
            vec![5, 0, 0xac, 0xff, 0],
            Answer::Done,
        ),
        (Request::WriteRegister { at: 1, word: 3 }, vec![6, 0, 1, 0, 3], vec![6, 0, 1, 0, 3], Answer::Done),
        (Request::Echo(0xa537), vec![8, 0, 0, 0xa5, 0x37], vec![8, 0, 0, 0xa5, 0x37], Answer::Done),
        (
            Request::WriteCoils { start: 0x13, bits: "1011001110".bytes().map(|b| b == b'1').collect() },
            vec![15, 0, 0x13, 0, 10, 2, 0xcd, 1],
            vec![15, 0, 0x13, 0, 10],
            Answer::Done,
        ),
        (
            Request::WriteRegisters { start: 1, words: vec![10, 0x102] },
            vec![16, 0, 1, 0, 2, 4, 0, 10, 1, 2],
            vec![16, 0, 1, 0, 2],
            Answer::Done,
        ),
        (
            Request::Identify,
            vec![0x2b, 0x0e, 1, 0],
            [vec![0x2b, 0x0e, 1, 1, 0, 0, 2, 0, 2], b"Co".to_vec(), vec![1, 1], b"P".to_vec()].concat(),
            Answer::Identity(vec!["Co".into(), "P".into()]),
        ),
    ]
}

#[test]
fn the_examples_of_the_specification_are_spoken_and_understood() {
    for (request, spoken, heard, meant) in examples() {
        assert_eq!(request.encode(), spoken);
        assert_eq!(request.answer(&heard), Some(meant), "{request:?}");
        assert_eq!(answer_len(&heard), Some(heard.len()), "{request:?}");
        let refused = [request.function() | 0x80, 2];
        assert_eq!(request.answer(&refused), Some(Answer::Refused(Exception::ADDRESS)));
        assert_eq!(answer_len(&refused), Some(2));
    }
}

#[test]
fn no_answer_is_taken_for_that_to_another_request() {
    for (i, (request, ..)) in examples().into_iter().enumerate() {
        for (k, (_, _, heard, _)) in examples().into_iter().enumerate() {
            assert_eq!(request.answer(&heard).is_some(), i == k, "{request:?} and {heard:?}");
        }
    }
    let read = Request::Read { table: Table::Holding, start: 0, count: 2 };
    for wrong in [&[][..], &[3], &[3, 4], &[3, 4, 0, 1, 0], &[3, 2, 0, 1], &[3, 4, 0, 1, 0, 2, 0], &[0x84, 2]]
    {
        assert_eq!(read.answer(wrong), None, "{wrong:?}");
    }
    let elsewhere = Request::WriteRegister { at: 2, word: 3 };
    assert_eq!(elsewhere.answer(&[6, 0, 1, 0, 3]), None);
    assert_eq!(elsewhere.answer(&[6, 0, 2, 0, 4]), None, "another value");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        answer_len(&bytes);
        for (request, ..) in examples() {
            request.answer(&bytes);
        }
    }
}

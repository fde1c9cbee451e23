import { describe, expect, test } from 'vitest';
import { parseOptions } from './options.ts';
import { entriesOf, patroniPhases, replacementPhases, takeoverPhases } from './phases.ts';
import { reportOf } from './report.ts';
import { rowOf, rows } from './rows.ts';
import { blocksLeft, newestVersions, type Run, type Subject } from './runs.ts';

function runOf(row: string, subject: Subject, more: Partial<Run> = {}): Run {
  return {
    subject,
    version: subject.startsWith('koschei') ? 'Koschei 1' : subject,
    row,
    at: '2000-01-01T00:00:00.000Z',
    gaps: { service: 900, 'multi-host': 800, direct: 700 },
    gapsAfter: {},
    unrecovered: [],
    phases: { detect: 300 },
    etcdLeaderHit: false,
    moved: true,
    redundantAfter: 5_000,
    acknowledged: 100,
    lost: 0,
    faults: [],
    ...more,
  };
}

const versions = {
  koschei: 'Koschei 1',
  'koschei-without-api': 'Koschei 1',
  'patroni-minimum': 'patroni-minimum',
  'patroni-default': 'patroni-default',
};

describe('options', () => {
  test('mean everything when there are none', () => {
    const options = parseOptions([]);
    expect(options.rows).toBe(rows);
    expect(options.subjects).toEqual([
      'koschei',
      'koschei-without-api',
      'patroni-minimum',
      'patroni-default',
    ]);
    expect(options.runs).toBe(20);
  });

  test('choose', () => {
    const options = parseOptions(['--rows', 'switchover,node-killed', '--runs', '3', '--peer', 'none']);
    expect(options.rows.map(({ id }) => id)).toEqual(['switchover', 'node-killed']);
    expect(options.subjects).toEqual(['koschei', 'koschei-without-api']);
    expect(options.runs).toBe(3);
    expect(parseOptions(['--no-kubernetes-api']).subjects).toEqual(['koschei-without-api']);
    expect(parseOptions(['--peer', 'only']).subjects).toEqual(['patroni-minimum', 'patroni-default']);
  });

  test.each([
    [['--rows', 'nonsense'], /expected rows among switchover, .*found nonsense/],
    [['--runs', '0'], /runs/],
    [['--peer', 'stolon'], /peer/],
    [['--what'], /--what/],
  ])('%j are refused', (args, message) => expect(() => parseOptions(args)).toThrow(message));
});

describe('what is left to be measured', () => {
  const plan = {
    rows: [rowOf('switchover'), rowOf('node-frozen'), rowOf('node-frozen-etcd')],
    subjects: parseOptions([]).subjects,
    runs: 20,
  };
  const left = (done: readonly Run[]) =>
    blocksLeft(plan, done, versions).map(({ row, subject, runs }) => `${row.id} ${subject} ${runs}`);

  test('is everything at first: of the peer 5 runs, of freezes 3; without API where that can be', () => {
    expect(left([])).toEqual([
      'switchover koschei 20',
      'switchover patroni-minimum 5',
      'switchover patroni-default 5',
      'node-frozen koschei 20',
      'node-frozen koschei-without-api 20',
      'node-frozen patroni-minimum 3',
      'node-frozen patroni-default 3',
      'node-frozen-etcd koschei 20',
    ]);
  });

  test('is less by what is there, but not by runs of another version', () => {
    const done = [
      ...Array.from({ length: 20 }, () => runOf('switchover', 'koschei')),
      runOf('switchover', 'patroni-minimum'),
      runOf('node-frozen', 'koschei', { version: 'Koschei 0' }),
    ];
    expect(left(done).slice(0, 3)).toEqual([
      'switchover patroni-minimum 4',
      'switchover patroni-default 5',
      'node-frozen koschei 20',
    ]);
  });

  test('of several versions, the one measured last is told of', () => {
    const [old, now] = [
      runOf('switchover', 'koschei', { version: 'Koschei 0' }),
      runOf('switchover', 'koschei'),
    ];
    expect(newestVersions([old, runOf('switchover', 'patroni-default'), now])).not.toContain(old);
  });
});

describe('phases', () => {
  const line = (ms: number, fields: object) =>
    JSON.stringify({ time: new Date(ms).toISOString(), ...fields });
  const begun = (ms: number, operation: string) => line(ms, { operation, because: 'a reason' });
  const done = (ms: number, operation: string) => line(ms, { operation, msg: 'done' });

  test('of a takeover follow each other', () => {
    const log = entriesOf(
      [
        begun(100, 'promote'),
        'LOG:  not one of ours',
        begun(1_300, 'stop-receiver'),
        done(1_350, 'stop-receiver'),
        begun(1_380, 'promote'),
        done(1_580, 'promote'),
        line(1_700, { msg: 'the -rw Service leads here' }),
        line(1_900, { because: 'only names in etcd need to confirm' }),
        begun(1_901, 'configure'),
        done(1_950, 'configure'),
      ].join('\n'),
      1_000,
    );
    expect(takeoverPhases(log, 1_000, { service: 2_100, 'multi-host': 2_000, direct: 1_960 })).toEqual({
      detect: 300,
      'stop receiver': 50,
      take: 30,
      promote: 200,
      'sync set usable': 370,
      route: 120,
      'first ack, Service': 150,
      'first ack, all hosts': 50,
      'first ack, direct': 10,
    });
  });

  test('of a replaced standby are fewer', () => {
    const log = entriesOf(
      [
        line(1_400, { operation: 'configure', because: 'shop-3 becomes synchronous' }),
        line(1_500, { because: 'only names in etcd need to confirm' }),
        done(1_600, 'configure'),
      ].join('\n'),
      1_000,
    );
    expect(replacementPhases(log, 1_000, { direct: 1_620 })).toEqual({
      detect: 400,
      'sync set usable': 200,
      'first ack, direct': 20,
    });
  });

  test('of Patroni are in its log and in that of its Postgres', () => {
    const log = `2000-01-01 00:00:00,100 INFO: promoted self to leader by acquiring session lock
2000-01-01 00:00:21,500 INFO: promoted self to leader by acquiring session lock
2000-01-01 00:00:22.000 UTC [52] LOG:  database system is ready to accept connections
`;
    const at = (seconds: number) => Date.UTC(2000, 0, 1) + seconds * 1000;
    expect(patroniPhases(log, at(1), { 'multi-host': at(23.3) })).toEqual({
      detect: 20_500,
      promote: 500,
      'first ack, all hosts': 1_300,
    });
  });

  test('that did not happen are not told', () => {
    expect(takeoverPhases([], 0, { direct: 5 })).toEqual({});
    expect(patroniPhases('', 0, { direct: 5 })).toEqual({});
  });
});

describe('the report', () => {
  const text = reportOf(
    [
      runOf('switchover', 'koschei'),
      runOf('switchover', 'koschei', { gaps: { service: 1_900, 'multi-host': 1_000, direct: 700 } }),
      runOf('switchover', 'patroni-minimum', { gaps: { 'multi-host': 1_600 } }),
      runOf('primary-without-peers', 'patroni-default', {
        gaps: { 'multi-host': 80_000 },
        unrecovered: ['multi-host'],
      }),
      runOf('node-frozen', 'koschei-without-api'),
    ],
    'a machine',
  );

  test('has a line for each row that was measured', () => {
    expect(text).toContain('| switchover | 900 / 1,900 | 800 / 1,000 | 700 / 700 | 2 of 2 |');
    expect(text).toContain('| node frozen | 800 / 800 | 700 / 700 | 1 |');
    expect(text).not.toContain('node killed');
  });

  test('has the ratio to the peer', () => {
    expect(text).toContain('| switchover | 800 / 1,000 | 1,600 / 1,600 | 2.0 |  |  | 2 / 1 / 0 |');
  });

  test('says where writes stood still until the fault was undone', () => {
    expect(text).toContain('> 80,000 / 80,000 (1 of 1 until it was undone)');
  });

  test('says how many acknowledged transactions were lost, and how the writers were set', () => {
    expect(text).toContain('Koschei: 300 acknowledged transactions in 3 runs, 0 lost');
    expect(text).toContain('statement timeout 500 ms, connect timeout 300 ms per host, hosts shuffled');
  });
});

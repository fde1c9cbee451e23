import { BlockList, isIP } from 'node:net';
import type { z } from 'zod';
import type { ConditionReason } from './conditions.ts';
import { parseDuration } from './duration.ts';
import {
  clusterNamePattern,
  instanceName,
  isReservedLabel,
  maxClusterNameLength,
  ordinalOf,
} from './names.ts';
import { safeSynchronousCommit, whyOwned } from './owned-parameters.ts';
import { PgClusterSpec } from './pgcluster.ts';
import { parseQuantity } from './quantity.ts';

/** Why a spec, or a change of one, is not put into force. */
export interface Refusal {
  /** Path of the field, as `kubectl explain` takes it: `spec.storage.size`. */
  field: string;
  reason: Extract<
    ConditionReason,
    'InvalidSpec' | 'ImmutableField' | 'StorageShrink' | 'MajorUpgradeRefused'
  >;
  expected: string;
  found: string;
  /** What a person can do. */
  advice: string;
}

/** One line for people; goes into the message of the condition `Accepted`. */
export const describeRefusals = (refusals: readonly Refusal[]): string =>
  refusals
    .map(({ field, expected, found, advice }) => `${field}: expected ${expected}, found ${found}; ${advice}`)
    .join('. ');

/** Refusals thrown, where there is nobody to show them to but the caller. */
export class RefusedError extends Error {
  readonly refusals: readonly Refusal[];
  constructor(refusals: readonly Refusal[]) {
    super(describeRefusals(refusals));
    this.name = 'RefusedError';
    this.refusals = refusals;
  }
}

export type SpecReading = { ok: true; spec: PgClusterSpec } | { ok: false; refusals: readonly Refusal[] };

/** Reads `spec` of a PgCluster as it comes from the API: parses it, fills in defaults, and checks what can be checked. */
export function readSpec(found: unknown): SpecReading {
  const parsed = PgClusterSpec.safeParse(found);
  if (!parsed.success)
    return { ok: false, refusals: parsed.error.issues.map((issue) => ofIssue(issue, found)) };
  const refusals = validateSpec(parsed.data);
  return refusals.length === 0 ? { ok: true, spec: parsed.data } : { ok: false, refusals };
}

/**
 * The spec in force that a status records; undefined when none was ever accepted.
 * @throws {RefusedError} when one is recorded that this version cannot read: it must not pass for none.
 */
export function acceptedSpec(status: { acceptedSpec?: unknown } | undefined): PgClusterSpec | undefined {
  if (status?.acceptedSpec === undefined) return undefined;
  const parsed = PgClusterSpec.safeParse(status.acceptedSpec);
  if (parsed.success) return parsed.data;
  throw new RefusedError(
    parsed.error.issues.map((issue) => ({
      ...ofIssue(issue, status.acceptedSpec, 'status.acceptedSpec'),
      advice: 'it was written by another version of Koschei: upgrade or go back to that version',
    })),
  );
}

/** What is wrong with the name of a PgCluster. Services and the labels of StatefulSets set the limits. */
export function validateName(name: string): Refusal[] {
  if (name.length <= maxClusterNameLength && new RegExp(clusterNamePattern).test(name)) return [];
  return [
    invalid(
      'metadata.name',
      `at most ${maxClusterNameLength} lowercase letters, digits and "-", a letter first and no "-" last`,
      quote(name),
      'create the PgCluster under another name',
    ),
  ];
}

/** What is wrong with a spec beyond its schema. Parameters that Postgres does not know are found by the agents. */
export function validateSpec(spec: PgClusterSpec): Refusal[] {
  return [
    ...Object.entries(spec.postgres.parameters ?? {}).flatMap(([name, value]) => parameter(name, value)),
    ...feedbackForFailoverSlots(spec.postgres),
    ...(spec.postgres.hba ?? []).flatMap((line, index) => hbaLine(line, index)),
    ...image(spec.postgres.image),
    ...volumeSize('spec.storage.size', spec.storage.size),
    ...(spec.storage.wal === undefined ? [] : volumeSize('spec.storage.wal.size', spec.storage.wal.size)),
    ...requestsWithinLimits(spec.resources),
    ...buffersWithinLimit(spec),
    ...labels('spec.podMetadata.labels', spec.podMetadata?.labels),
    ...reservedLabels('spec.podMetadata.labels', spec.podMetadata?.labels),
    ...labels('spec.placement.nodeSelector', spec.placement.nodeSelector),
    ...annotations('spec.podMetadata.annotations', spec.podMetadata?.annotations),
    ...annotations('spec.service.annotations', spec.service.annotations),
    ...(spec.placement.tolerations ?? []).flatMap((entry, index) => toleration(entry, index)),
    ...replacementDelay(spec.failover.replaceLostInstanceAfter),
    ...(spec.etcd?.endpoints ?? []).flatMap((endpoint, index) => etcdEndpoint(endpoint, index)),
    ...instanceOptions(spec),
    ...maximumLag(spec),
  ];
}

/** Options of instances that no cluster of this name can have. */
export function validateInstanceNames(cluster: string, spec: PgClusterSpec): Refusal[] {
  const unknown = (field: string, name: string, expected = ''): Refusal[] =>
    ordinalOf(cluster, name) !== undefined
      ? []
      : [
          invalid(
            field,
            `${expected}an instance of this cluster, such as ${instanceName(cluster, 2)}`,
            quote(name),
            'correct it: `kubectl get pgi` lists the names',
          ),
        ];
  return (spec.instances ?? []).flatMap(({ name, streamFrom }, index) => [
    ...unknown(`spec.instances[${index}].name`, name),
    ...(streamFrom === undefined || streamFrom === 'standby'
      ? []
      : unknown(`spec.instances[${index}].streamFrom`, streamFrom, '"standby" or ')),
  ]);
}

function maximumLag({ failover, replicas }: PgClusterSpec): Refusal[] {
  if (failover.maximumLag === undefined || replicas.synchronous === 0) return [];
  return [
    invalid(
      'spec.failover.maximumLag',
      'nothing with synchronous standbys',
      quote(failover.maximumLag),
      'remove it: only who holds every acknowledged commit takes over then',
    ),
  ];
}

function instanceOptions({ instances = [], replicas }: PgClusterSpec): Refusal[] {
  const names = instances.map(({ name }) => name);
  const barred = instances.filter((each) => each.noFailover || each.applyDelaySeconds !== undefined);
  return [
    ...instances.flatMap(({ name, priority, streamFrom, ...rest }, index) => {
      const noFailover = rest.noFailover || rest.applyDelaySeconds !== undefined;
      const field = `spec.instances[${index}]`;
      const twice = names.indexOf(name) < index;
      const cascades = instances.some((each) => each.name === streamFrom && each.streamFrom !== undefined);
      return [
        ...(streamFrom === name || cascades
          ? [
              invalid(
                `${field}.streamFrom`,
                'another instance, which streams from the primary',
                quote(name === streamFrom ? name : `${streamFrom}, which has streamFrom itself`),
                'name another instance, or remove it',
              ),
            ]
          : []),
        ...(twice
          ? [invalid(`${field}.name`, 'each instance once', quote(name), 'put its options into one entry')]
          : []),
        ...(noFailover && priority !== undefined
          ? [
              invalid(
                `${field}.priority`,
                'nothing beside noFailover or applyDelaySeconds',
                String(priority),
                'remove one of the two: who never becomes the primary has no priority for it',
              ),
            ]
          : []),
      ];
    }),
    // Else the set of synchronous standbys could never be complete, or nobody take over.
    ...(barred.length > replicas.asynchronous
      ? [
          invalid(
            'spec.instances',
            `noFailover or applyDelaySeconds for at most ${replicas.asynchronous} instances, as many as there are asynchronous standbys`,
            String(barred.length),
            'take noFailover from one, or ask for more asynchronous standbys (spec.replicas.asynchronous)',
          ),
        ]
      : []),
  ];
}

/**
 * What is wrong with going from the spec in force to another one. Newer API servers refuse the same by the rules in
 * the CRD; this is for those without CEL, and for rules that came later than the resource.
 */
export function refuseChange(accepted: PgClusterSpec, wanted: PgClusterSpec): Refusal[] {
  const fixed = (field: string, before: unknown, after: unknown, advice: string): Refusal[] =>
    sameValue(before, after)
      ? []
      : [{ field, reason: 'ImmutableField', expected: show(before), found: show(after), advice }];
  const moveOver = 'restore the old value, or create another PgCluster and move the data';
  const before = accepted.storage;
  const after = wanted.storage;
  return [
    ...(accepted.postgres.version === wanted.postgres.version
      ? []
      : [
          {
            field: 'spec.postgres.version',
            reason: 'MajorUpgradeRefused',
            expected: show(accepted.postgres.version),
            found: show(wanted.postgres.version),
            advice:
              'restore the old value; for another major version create another PgCluster and move the data with pg_dump or logical replication',
          } as const,
        ]),
    ...fixed('spec.storage.storageClassName', before.storageClassName, after.storageClassName, moveOver),
    ...shrink('spec.storage.size', before.size, after.size),
    ...(before.wal === undefined || after.wal === undefined
      ? fixed('spec.storage.wal', before.wal, after.wal, moveOver)
      : [
          ...fixed(
            'spec.storage.wal.storageClassName',
            before.wal.storageClassName,
            after.wal.storageClassName,
            moveOver,
          ),
          ...shrink('spec.storage.wal.size', before.wal.size, after.wal.size),
        ]),
    ...fixed('spec.security', accepted.security, wanted.security, moveOver),
    ...fixed(
      'spec.etcd',
      accepted.etcd,
      wanted.etcd,
      'restore the old value: who is primary is recorded there, and instances that ask different etcds could both lead',
    ),
  ];
}

/** Addresses that mean something else on every machine: the operator's own are not the user's to talk to. */
const local = new BlockList();
local.addSubnet('0.0.0.0', 8, 'ipv4');
local.addSubnet('127.0.0.0', 8, 'ipv4');
local.addSubnet('169.254.0.0', 16, 'ipv4');
local.addAddress('::', 'ipv6');
local.addAddress('::1', 'ipv6');
local.addSubnet('fe80::', 10, 'ipv6');

/** Names that resolve to such addresses are not found out here: the operator tells only the kind of an error. */
function etcdEndpoint(endpoint: string, index: number): Refusal[] {
  const host = URL.canParse(endpoint)
    ? new URL(endpoint).hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')
    : undefined;
  const family = host === undefined ? 0 : isIP(host);
  const isLocal =
    host === undefined ||
    host === 'localhost' ||
    host.endsWith('.localhost') ||
    (family !== 0 && local.check(host, family === 6 ? 'ipv6' : 'ipv4'));
  return isLocal
    ? [
        invalid(
          `spec.etcd.endpoints[${index}]`,
          'an address that means the same from every pod (not loopback, link-local or unspecified)',
          quote(endpoint),
          'name the Service or the address of etcd',
        ),
      ]
    : [];
}

const invalid = (field: string, expected: string, found: string, advice: string): Refusal => ({
  field,
  reason: 'InvalidSpec',
  expected,
  found,
  advice,
});

const quote = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
const show = (value: unknown): string => (value === undefined ? 'nothing' : JSON.stringify(value));

function sameValue(left: unknown, right: unknown): boolean {
  if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null) {
    return left === right;
  }
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...keys].every((key) => sameValue(Reflect.get(left, key), Reflect.get(right, key)));
}

function shrink(field: string, before: string, after: string): Refusal[] {
  const [from, to] = [parseQuantity(before), parseQuantity(after)];
  if (from === undefined || to === undefined || to >= from) return [];
  return [
    {
      field,
      reason: 'StorageShrink',
      expected: `at least ${before}`,
      found: after,
      advice: 'restore the old size: volumes only grow',
    },
  ];
}

const smallestVolume = '256Mi';

/** An empty Postgres needs about 40 MiB, and up to 80 MiB of WAL before it first removes any. */
function volumeSize(field: string, size: string): Refusal[] {
  const bytes = parseQuantity(size);
  if (bytes !== undefined && bytes >= (parseQuantity(smallestVolume) ?? 0)) return [];
  return [invalid(field, `at least ${smallestVolume}`, quote(size), 'ask for a larger volume')];
}

const walLevels: readonly string[] = ['replica', 'logical'];

/** From Postgres 17 failover slots are copied where the spec allows logical slots, and the copies need the feedback. */
function feedbackForFailoverSlots({ version, parameters = {} }: PgClusterSpec['postgres']): Refusal[] {
  const given = Object.entries(parameters).map(([name, value]) => [name.toLowerCase(), name, value] as const);
  const feedback = given.find(([name]) => name === 'hot_standby_feedback');
  const isLogical = given.some(([name, , value]) => name === 'wal_level' && value === 'logical');
  if (version < 17 || !isLogical || feedback === undefined || feedback[2] === 'on') return [];
  return [
    invalid(
      `spec.postgres.parameters[${feedback[1]}]`,
      'on, together with wal_level logical',
      quote(feedback[2]),
      'remove it: it is on, because the copies of failover slots on standbys need it',
    ),
  ];
}

function parameter(name: string, value: string): Refusal[] {
  const field = `spec.postgres.parameters[${name}]`;
  if (name.length > 63 || !/^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*$/i.test(name)) {
    return [invalid(field, 'the name of a Postgres parameter', quote(name), 'correct or remove it')];
  }
  const why = whyOwned(name);
  if (why !== undefined) return [invalid(field, 'not to be set', quote(value), `remove it: ${why}`)];
  if (/[\0\r\n]/.test(value)) {
    return [invalid(field, 'one line of text', quote(value), 'remove the line breaks')];
  }
  if (name.toLowerCase() === 'wal_level' && !walLevels.includes(value)) {
    return [invalid(field, walLevels.join(' or '), quote(value), 'standbys need one of these')];
  }
  const safe: readonly string[] = safeSynchronousCommit;
  if (name.toLowerCase() === 'synchronous_commit' && !safe.includes(value.toLowerCase())) {
    return [
      invalid(
        field,
        safe.join(' or '),
        quote(value),
        'set it to less in single sessions or transactions that can bear to lose commits',
      ),
    ];
  }
  return [];
}

/** Record types of pg_hba.conf; `include` directives are left out, since they would read files of the image. */
function hbaLine(line: string, index: number): Refusal[] {
  const comment = /^\s*(#[^\r\n]*)?$/;
  const record = /^\s*(local|host|hostssl|hostnossl|hostgssenc|hostnogssenc)\s+\S[^\r\n\0]*$/;
  if (comment.test(line) || record.test(line)) return [];
  return [
    invalid(
      `spec.postgres.hba[${index}]`,
      'one line of pg_hba.conf that begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc',
      quote(line),
      'correct or remove it',
    ),
  ];
}

function image(name: string | undefined): Refusal[] {
  if (name === undefined || !/[:-]alpine/.test(name)) return [];
  return [
    invalid(
      'spec.postgres.image',
      'an image based on Debian (glibc)',
      quote(name),
      'take the Debian variant: Alpine has another C library, which the agent does not run on',
    ),
  ];
}

function requestsWithinLimits(resources: PgClusterSpec['resources']): Refusal[] {
  return Object.entries(resources?.requests ?? {}).flatMap(([name, request]) => {
    const limit = resources?.limits?.[name as keyof NonNullable<typeof resources.limits>];
    const [wanted, allowed] = [parseQuantity(request ?? ''), parseQuantity(limit ?? '')];
    if (wanted === undefined || allowed === undefined || wanted <= allowed) return [];
    return [
      invalid(
        `spec.resources.requests.${name}`,
        `at most the limit, ${limit}`,
        quote(`${request}`),
        'lower the request or raise the limit',
      ),
    ];
  });
}

/** Units of Postgres's memory settings; a number alone counts blocks of 8 kB. */
const memoryUnits: Readonly<Record<string, number>> = {
  '': 8192,
  B: 1,
  kB: 1024,
  MB: 1024 ** 2,
  GB: 1024 ** 3,
  TB: 1024 ** 4,
};

/**
 * Postgres finds out only when it starts that it cannot have its buffers, or is killed when it has used them: a restart
 * would not come back. What is no amount of memory at all, Postgres refuses at the reload.
 */
function buffersWithinLimit({ postgres, resources }: PgClusterSpec): Refusal[] {
  const limit = resources?.limits?.memory;
  const [name, value = ''] =
    Object.entries(postgres.parameters ?? {}).find(([key]) => key.toLowerCase() === 'shared_buffers') ?? [];
  const [, digits, unit = ''] = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?B)?\s*$/.exec(value) ?? [];
  const allowed = parseQuantity(limit ?? '');
  if (digits === undefined || allowed === undefined) return [];
  if (Number(digits) * (memoryUnits[unit] ?? 1) < allowed) return [];
  return [
    invalid(
      `spec.postgres.parameters[${name}]`,
      `less than spec.resources.limits.memory, ${limit}`,
      quote(value),
      'lower it (a quarter of the memory is usual) or raise the limit',
    ),
  ];
}

/** Shorter than this, a node that only restarts its kubelet would count as lost, ms. */
const shortestReplacement = 30_000;
const longestReplacement = 720 * 3_600_000;

function replacementDelay(text: string): Refusal[] {
  const ms = parseDuration(text);
  if (ms === 0 || (ms !== undefined && ms >= shortestReplacement && ms <= longestReplacement)) return [];
  return [
    invalid(
      'spec.failover.replaceLostInstanceAfter',
      '0 (never), or a duration from 30s to 720h',
      quote(text),
      'give a lost node the time that a restart of a machine takes, for example 30m',
    ),
  ];
}

/** The syntax of label keys: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ */
function keyFault(key: string): boolean {
  const [name = '', prefix, ...more] = key.split('/').reverse();
  const goodName = name.length <= 63 && /^[a-z0-9]([-_.a-z0-9]*[a-z0-9])?$/i.test(name);
  const goodPrefix =
    prefix === undefined ||
    (prefix.length <= 253 &&
      /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(prefix));
  return !goodName || !goodPrefix || more.length > 0;
}

function annotations(field: string, map: Record<string, string> | undefined): Refusal[] {
  return Object.keys(map ?? {})
    .filter(keyFault)
    .map((key) =>
      invalid(
        `${field}[${key}]`,
        'a name of at most 63 characters with an optional DNS prefix',
        quote(key),
        'correct it',
      ),
    );
}

function labels(field: string, map: Record<string, string> | undefined): Refusal[] {
  const badValue = (value: string) =>
    value.length > 63 || !/^([a-z0-9]([-_.a-z0-9]*[a-z0-9])?)?$/i.test(value);
  return [
    ...annotations(field, map),
    ...Object.entries(map ?? {})
      .filter(([, value]) => badValue(value))
      .map(([key, value]) =>
        invalid(
          `${field}[${key}]`,
          'at most 63 letters, digits, "-", "_" and ".", a letter or digit at both ends',
          quote(value),
          'correct it',
        ),
      ),
  ];
}

/** Labels by which Koschei and its Services know their pods. */
function reservedLabels(field: string, map: Record<string, string> | undefined): Refusal[] {
  return Object.keys(map ?? {})
    .filter(isReservedLabel)
    .map((key) =>
      invalid(
        `${field}[${key}]`,
        'a label that is not one of Koschei',
        quote(key),
        'take another key: Services and the operator find the pods by this one',
      ),
    );
}

type Toleration = NonNullable<PgClusterSpec['placement']['tolerations']>[number];

/** The rules by which the API server would refuse the pod. */
function toleration(entry: Toleration, index: number): Refusal[] {
  const field = `spec.placement.tolerations[${index}]`;
  const anyValue = entry.operator === 'Exists';
  const fault = (name: string, expected: string, found: unknown) =>
    invalid(`${field}.${name}`, expected, show(found), 'correct the toleration');
  return [
    ...(anyValue && (entry.value ?? '') !== ''
      ? [fault('value', 'nothing with operator Exists', entry.value)]
      : []),
    ...(!anyValue && (entry.key ?? '') === '' ? [fault('key', 'a key, or operator Exists', entry.key)] : []),
    ...(entry.tolerationSeconds !== undefined && entry.effect !== 'NoExecute'
      ? [fault('tolerationSeconds', 'nothing without effect NoExecute', entry.tolerationSeconds)]
      : []),
  ];
}

/** A refusal in place of what zod found wrong with `root`. */
function ofIssue(issue: z.core.$ZodIssue, root: unknown, prefix = 'spec'): Refusal {
  const found = issue.path.reduce<unknown>(
    (value, key) => (typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined),
    root,
  );
  const field = issue.path.reduce<string>(
    (path, key) => (typeof key === 'number' ? `${path}[${key}]` : `${path}.${String(key)}`),
    prefix,
  );
  const advice = found === undefined ? 'add it' : 'correct it';
  return invalid(
    field,
    expectation(issue),
    quoteValue(found),
    `${advice}, see \`kubectl explain pgcluster.${fieldWithoutIndexes(field)}\``,
  );
}

const fieldWithoutIndexes = (field: string): string => field.replace(/\[\d+\]/g, '');
const quoteValue = (value: unknown): string =>
  value === undefined ? 'nothing' : quote(JSON.stringify(value)).slice(1, -1).replaceAll('\\"', '"');

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.expected;
    case 'too_small':
      return `at least ${issue.minimum}`;
    case 'too_big':
      return `at most ${issue.maximum}`;
    case 'invalid_value':
      return `one of ${issue.values.map(String).join(', ')}`;
    case 'invalid_format':
      // Schemas of ours say what they expect; zod's own messages begin with "Invalid".
      return issue.message.startsWith('Invalid')
        ? `text that matches ${issue.pattern ?? issue.format}`
        : issue.message;
    case 'invalid_union':
      return 'a number or a text of the right form';
    default:
      return issue.message;
  }
}

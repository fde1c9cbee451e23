import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PgClusterSpecInput } from '../../api/pgcluster.ts';
import type { Secret } from '../../kube/index.ts';
import { scramVerifier, verifies } from '../../postgres/scram.ts';
import type { Action } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { filledClaim, Model, now } from '../testing/model.ts';
import { encode, read } from './desired/secrets.ts';
import { membersOf } from './members.ts';
import { planCluster } from './plan.ts';

const spec = (synchronous: number, asynchronous: number, more: object = {}): PgClusterSpecInput => ({
  storage: { size: '1Gi' },
  replicas: { synchronous, asynchronous },
  ...more,
});
const conditionOf = (model: Model, type: string) =>
  model.cluster.status?.conditions?.find((each) => each.type === type);
const kinds = (actions: readonly Action[]) =>
  actions.map((action) =>
    action.do === 'delete'
      ? `delete ${action.resource.kind}/${action.ref.name}`
      : action.do === 'request'
        ? `switchover ${action.value.to}`
        : action.do === 'command'
          ? `restart ${action.instance}`
          : action.do,
  );
const steps = (model: Model, from: number) =>
  kinds(model.done.slice(from)).filter((each) => /Pod|switchover|restart/.test(each));

async function running(synchronous = 1, asynchronous = 2, more: object = {}): Promise<Model> {
  const model = new Model(spec(synchronous, asynchronous, more));
  await model.converge();
  return model;
}

describe('a new cluster', () => {
  it('records its id before it makes anything that carries it', () => {
    const plan = planCluster(new Model(spec(1, 1)).snapshot);
    expect(plan.actions).toEqual([]);
    expect(plan.status).toMatchObject({ clusterId: 'abcdefghijklmnop', phase: 'Creating' });
  });

  it('comes to run, with exactly one instance that makes a new database', async () => {
    const model = await running();
    expect(model.cluster.status).toMatchObject({ phase: 'Running', primary: 'shop-1', ready: '4/4' });
    const modes = [...model.instances.values()].map((each) => each.spec.initMode);
    expect(modes.sort()).toEqual(['clone', 'clone', 'clone', 'initdb']);
  });

  it('makes no instance before every Secret that its pod mounts is there', async () => {
    const model = new Model(spec(1, 1));
    for (let n = 0; n < 10 && model.instances.size === 0; n += 1) await model.pass();
    for (const name of ['shop-app', 'shop-server-tls', 'shop-replication-tls', 'shop-etcd-tls']) {
      expect(model.objects.has(`Secret/${name}`)).toBe(true);
    }
  });

  it('never makes the password or the authority twice', async () => {
    const model = await running();
    model.edit(spec(1, 4));
    await model.converge();
    const made = model.done.flatMap((each) => (each.do === 'create' ? [each.object.metadata.name] : []));
    expect(made.filter((name) => name === 'shop-app')).toHaveLength(1);
    expect(model.done.filter((each) => each.do === 'create-authority')).toHaveLength(1);
  });

  it('writes the first configuration with the verifier of the password, and the password nowhere', async () => {
    const model = await running();
    const written = model.done.flatMap((each) => (each.do === 'write-config' ? [each.value] : []));
    expect(written).toHaveLength(1);
    expect(written[0]?.appPasswordVerifier).toBe(scramVerifier('secret', Buffer.alloc(16, 7)));
    expect(JSON.stringify(written)).not.toContain('"secret"');
  });

  it('makes nothing without etcd', async () => {
    const model = new Model(spec(1, 1));
    model.etcdAnswers = false;
    await model.converge();
    expect(model.instances.size).toBe(0);
    expect(conditionOf(model, 'EtcdReachable')).toMatchObject({ status: 'False', reason: 'EtcdUnreachable' });
    expect(conditionOf(model, 'EtcdReachable')?.message).toContain('stops within 6 s');
  });
});

describe('what the status says about synchronous replication', () => {
  it('is that commits wait when the standby that must confirm them does not stream', async () => {
    const model = await running(1, 0);
    expect(conditionOf(model, 'SynchronousReplication')).toMatchObject({
      status: 'True',
      reason: 'NoSpareForSync',
    });
    const [standby = ''] = model.cluster.status?.synchronousStandbys ?? [];
    model.broken.add(standby);
    model.react();
    await model.pass();
    expect(conditionOf(model, 'SynchronousReplication')).toMatchObject({
      status: 'False',
      reason: 'WaitingForStandby',
      message: expect.stringContaining(`${standby} must confirm commits`),
    });
  });

  it('is nothing while etcd cannot be asked', async () => {
    const model = await running(1, 2);
    model.etcdAnswers = false;
    await model.pass();
    expect(conditionOf(model, 'SynchronousReplication')).toMatchObject({ status: 'Unknown' });
  });
});

describe('a bound of loss', () => {
  it('is told to the agents in bytes, and named where nobody takes over', async () => {
    const model = await running(0, 2, { failover: { maximumLag: '16Mi' } });
    expect(model.config?.maximumLagBytes).toBe(16 * 1024 * 1024);
    model.leader = model.leader && { ...model.leader, phase: 'vacated' };
    await model.pass();
    expect(conditionOf(model, 'Ready')?.message).toContain('lacks more than 16Mi');
  });
});

describe('zones', () => {
  it('are told to the agents as far as nodes have them, and not again for a pod that is away', async () => {
    const model = await running(1, 2);
    expect(model.config?.zones).toBeUndefined();
    const nodes = [...model.pods.values()].map((pod) => pod.spec?.nodeName ?? '');
    const [first = '', second = ''] = [...new Set(nodes)];
    model.zones.set(first, 'a').set(second, 'b');
    await model.converge();
    expect(model.config?.zones).toEqual({ [first]: 'a', [second]: 'b' });
    const { generation } = model.config ?? {};
    // A node that cannot be asked for is where it was.
    model.zones.delete(first);
    const gone = [...model.pods].find(([, pod]) => pod.spec?.nodeName === second);
    model.pods.delete(gone?.[0] ?? '');
    await model.pass();
    expect(model.config?.generation).toBe(generation);
    model.zones.set(second, '');
    await model.converge();
    expect(model.config?.zones).toEqual({ [first]: 'a' });
  });
});

describe('a pause', () => {
  const until = (ms: number) => new Date(now.getTime() + ms).toISOString();
  const paused = (ms: number) => spec(1, 2, { paused: { until: until(ms), reason: 'new switches' } });

  it('is told to the agents with its length, once, and loudly to people; the primary is left alone', async () => {
    const model = await running();
    model.edit(paused(3_600_000));
    const plan = await model.converge();
    expect(model.config?.paused).toEqual({ until: until(3_600_000), forMs: 3_600_000 });
    expect(plan.requeueAfterMs).toBe(3_600_000);
    expect(model.cluster.status?.phase).toBe('Paused');
    expect(conditionOf(model, 'Paused')).toMatchObject({
      status: 'True',
      reason: 'FailoverPaused',
      message: expect.stringMatching(/paused until .* \(new switches\)/),
    });
    const { generation } = model.config ?? {};
    model.time = new Date(now.getTime() + 60_000);
    expect((await model.converge()).requeueAfterMs).toBe(3_540_000);
    expect(model.config?.generation).toBe(generation);

    model.edit({ ...paused(3_600_000), postgres: { image: 'postgres:17.9' } });
    const from = model.done.length;
    await model.converge();
    expect(steps(model, from)).not.toContain('delete Pod/shop-1-0');
    expect(steps(model, from).join()).not.toContain('switchover');
    expect(conditionOf(model, 'Progressing')?.message).toContain('the end of the pause');
  });

  it('ends when its time is over, and is no fault then', async () => {
    const model = await running();
    model.edit(paused(60_000));
    await model.converge();
    model.time = new Date(now.getTime() + 60_000);
    await model.converge();
    expect(model.config?.paused).toBeUndefined();
    expect(model.cluster.status?.phase).toBe('Running');
    expect(conditionOf(model, 'Paused')).toMatchObject({ status: 'False', reason: 'NotPaused' });
    expect(conditionOf(model, 'Accepted')).toMatchObject({ status: 'True' });
  });

  it('says why nobody takes over', async () => {
    const model = await running();
    model.edit(paused(60_000));
    await model.converge();
    model.leader = model.leader && { ...model.leader, phase: 'vacated' };
    await model.pass();
    expect(model.cluster.status?.phase).toBe('Stopped');
    expect(conditionOf(model, 'Ready')?.message).toContain('automatic failover is paused until');
  });

  it('of more than 24 hours is refused', async () => {
    const model = await running();
    model.edit(paused(86_400_001));
    await model.converge();
    expect(conditionOf(model, 'Accepted')).toMatchObject({ status: 'False', reason: 'InvalidSpec' });
    expect(conditionOf(model, 'Accepted')?.message).toContain('spec.paused.until: expected at most 24 hours');
    expect(model.config?.paused).toBeUndefined();
  });
});

describe('what the status says besides', () => {
  it('is that the -rw Service leads elsewhere, although the primary takes writes', async () => {
    const model = await running();
    const leader = model.leader?.instance ?? '';
    const says = model.members.get(leader);
    if (says === undefined) throw new Error('the leader says nothing');
    const problem = { reason: 'ServiceOfLaterTerm', message: 'a later term than 1 owns it' };
    model.members.set(leader, { ...says, problem });
    await model.pass();
    expect(conditionOf(model, 'Degraded')).toMatchObject({
      status: 'True',
      reason: 'ServiceOfLaterTerm',
      message: `${leader}: a later term than 1 owns it`,
    });
    expect(conditionOf(model, 'Ready')).toMatchObject({ status: 'True' });
    expect(model.cluster.status?.phase).toBe('Degraded');
  });

  it('is that etcd takes no writes, although it answers', async () => {
    const model = await running();
    model.noSpace = true;
    await model.pass();
    expect(conditionOf(model, 'EtcdReachable')).toMatchObject({ status: 'False', reason: 'EtcdNoSpace' });
  });

  it('is why an instance does not carry out an order', async () => {
    const model = await running();
    model.edit(spec(1, 2, { postgres: { parameters: { max_connections: 200 } } }));
    await model.pass();
    model.react();
    await model.pass();
    const says = model.members.get('shop-4');
    if (says === undefined) throw new Error('shop-4 says nothing');
    const problem = { reason: 'StartFailed', message: 'could not map anonymous shared memory' };
    model.members.set('shop-4', { ...says, state: 'stopped', problem });
    await model.pass();
    expect(conditionOf(model, 'Progressing')?.message).toBe(
      'Waiting for shop-4 (StartFailed: could not map anonymous shared memory) to carry out an order',
    );
  });
});

describe('a Secret that was deleted or changed', () => {
  const secret = (model: Model, name: string) => model.objects.get(`Secret/${name}`) as Secret | undefined;

  it("the application's is made anew, with a password that Postgres is given, too", async () => {
    const model = await running();
    const before = model.config;
    model.objects.delete('Secret/shop-app');
    model.newPassword = 'another';
    await model.converge();
    expect(read(secret(model, 'shop-app'), 'password')).toBe('another');
    expect(verifies(model.config?.appPasswordVerifier ?? '', 'another')).toBe(true);
    expect(model.config?.generation).toBe((before?.generation ?? 0) + 1);
  });

  it("a password that a person puts into the application's is given to Postgres and into the URIs", async () => {
    const model = await running();
    const found = secret(model, 'shop-app');
    if (found === undefined) throw new Error('no Secret');
    model.objects.set('Secret/shop-app', {
      ...found,
      data: { ...found.data, password: encode('chosen') },
    } as Secret);
    await model.converge();
    expect(verifies(model.config?.appPasswordVerifier ?? '', 'chosen')).toBe(true);
    expect(read(secret(model, 'shop-app'), 'password')).toBe('chosen');
    expect(read(secret(model, 'shop-app'), 'uri')).toContain('app:chosen@');
  });

  it('the configuration of before stays in force while the Secret is away', async () => {
    const model = await running();
    model.objects.delete('Secret/shop-app');
    expect(kinds(planCluster(model.snapshot).actions)).toEqual(['create']);
  });

  it.each([
    ['gone', undefined],
    ['incomplete', 'ca.key'],
  ])('no other authority is made for one that is %s, and what is there stays', async (_, lost) => {
    const model = await running();
    const authority = secret(model, 'shop-ca');
    const before = new Map(model.objects);
    if (lost === undefined) model.objects.delete('Secret/shop-ca');
    else {
      const { [lost]: __, ...data } = authority?.data ?? {};
      model.objects.set('Secret/shop-ca', { ...authority, data } as Secret);
    }
    const done = model.done.length;
    await model.converge();
    expect(kinds(model.done.slice(done))).toEqual([]);
    expect(secret(model, 'shop-app')).toBe(before.get('Secret/shop-app'));
    const degraded = conditionOf(model, 'Degraded');
    expect(degraded).toMatchObject({ status: 'True', reason: 'SecretMissing' });
    expect(degraded?.message).toMatch(/shop-ca.*restore it/);
    expect(conditionOf(model, 'Ready')).toMatchObject({ status: 'True' });

    if (authority !== undefined) model.objects.set('Secret/shop-ca', authority);
    await model.converge();
    expect(conditionOf(model, 'Degraded')).toMatchObject({ status: 'False' });
  });

  it('a certificate that is missing with the authority waits for it', async () => {
    const model = await running();
    model.objects.delete('Secret/shop-ca');
    model.objects.delete('Secret/shop-replication-tls');
    await model.converge();
    expect(model.objects.has('Secret/shop-replication-tls')).toBe(false);
    expect(model.objects.has('Secret/shop-ca')).toBe(false);
  });
});

describe('scaling', () => {
  it('takes away whoever is missed least, first from the members and then altogether', async () => {
    const model = await running(1, 3);
    model.broken.add('shop-4');
    model.react();
    model.edit(spec(1, 2));
    const plan = planCluster(model.snapshot);
    expect(kinds(plan.actions)).toContain('write-config');
    expect(kinds(plan.actions)).not.toContain('delete PgInstance/shop-4');
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual(['shop-1', 'shop-2', 'shop-3', 'shop-5']);
    expect(model.claims.get('shop-4')?.metadata.annotations).toHaveProperty([operatorAnnotation.released]);
  });

  it('keeps those that the spec names among equally useful ones', async () => {
    const instances = [{ name: 'shop-5', noFailover: true }];
    const model = await running(1, 3, { instances });
    expect(model.config?.instances).toEqual({ 'shop-5': { noFailover: true } });
    model.edit(spec(1, 1, { instances }));
    await model.converge();
    expect([...model.instances.keys()]).toContain('shop-5');
    expect(model.instances.size).toBe(3);
  });

  it('waits until the leader goes by the smaller configuration', async () => {
    const model = await running(1, 2);
    model.edit(spec(1, 1));
    await model.pass();
    // The leader has not read the configuration yet: it might still choose the one that is to go.
    expect(kinds(planCluster(model.snapshot).actions)).not.toContain('delete PgInstance/shop-4');
    model.react();
    expect(kinds(planCluster(model.snapshot).actions)).toContain('delete PgInstance/shop-4');
  });

  it('removes nobody while nobody leads', async () => {
    const model = await running(1, 2);
    model.edit(spec(1, 1));
    if (model.leader !== undefined) model.leader = { ...model.leader, phase: 'vacated' };
    // The disruption budget follows the spec at once.
    expect(kinds(planCluster(model.snapshot).actions)).toEqual(['apply']);
  });

  it('uses a kept volume again, and forgets that it was given up', async () => {
    const model = await running(1, 2);
    model.edit(spec(1, 1));
    await model.converge();
    model.edit(spec(1, 2));
    await model.converge();
    expect(model.instances.has('shop-4')).toBe(true);
    expect(model.claims.get('shop-4')?.metadata.annotations).not.toHaveProperty([
      operatorAnnotation.released,
    ]);
  });

  it('brings back an instance that somebody deleted by mistake', async () => {
    const model = await running(1, 1);
    model.instances.delete('shop-2');
    model.react();
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual(['shop-1', 'shop-2', 'shop-3']);
  });
});

describe('a switchover that the primary refused', () => {
  it('is told by the condition until another instance leads', async () => {
    const model = await running();
    model.refusedRequest = { revision: '9', message: 'shop-2 is too far behind; the primary stays' };
    model.react();
    await model.converge();
    expect(conditionOf(model, 'Progressing')).toMatchObject({
      status: 'False',
      reason: 'SwitchoverFailed',
      message: expect.stringContaining('shop-2 is too far behind'),
    });
    expect(model.cluster.status?.phase).toBe('Running');
    model.refusedRequest = undefined;
    model.react();
    await model.converge();
    expect(conditionOf(model, 'Progressing')?.reason).toBe('Stable');
  });
});

describe('rolling changes', () => {
  it('go standby by standby, the asynchronous ones first, the primary last', async () => {
    const model = await running();
    const from = model.done.length;
    model.edit(spec(1, 2, { postgres: { image: 'postgres:17.9' } }));
    await model.converge();
    expect(steps(model, from)).toEqual([
      'delete Pod/shop-4-0',
      'delete Pod/shop-3-0',
      'delete Pod/shop-2-0',
      expect.stringMatching(/^switchover shop-[234]$/),
      'delete Pod/shop-1-0',
    ]);
  });

  it('change the image in the status when most pods have it, not when it is asked for', async () => {
    const model = await running();
    model.edit(spec(1, 2, { postgres: { image: 'postgres:17.9' } }));
    const seen: (string | undefined)[] = [model.cluster.status?.currentImage];
    for (let n = 0; n < 40; n += 1) {
      await model.pass();
      const changed = [...model.pods.values()].filter(
        ({ spec: pod }) => pod?.containers[0]?.image === 'postgres:17.9',
      ).length;
      const { currentImage } = model.cluster.status ?? {};
      if (changed < 2) expect(currentImage).toBe('postgres:17');
      if (currentImage !== seen.at(-1)) seen.push(currentImage);
      model.react();
    }
    expect(seen).toEqual(['postgres:17', 'postgres:17.9']);
  });

  it('bring the agents of the operator when somebody asks for them, and not before', async () => {
    const model = await running();
    const images = () => new Set([...model.instances.values()].map((each) => each.spec.agentImage));
    model.agentImage = 'koschei:2';
    let from = model.done.length;
    await model.converge();
    expect(steps(model, from)).toEqual([]);
    expect([...images()]).toEqual(['koschei:1']);

    const { metadata } = model.cluster;
    const annotations = { ...metadata.annotations, 'koschei.dev/upgrade-agents': 'now' };
    model.cluster = { ...model.cluster, metadata: { ...metadata, annotations } };
    from = model.done.length;
    await model.converge();
    expect([...images()]).toEqual(['koschei:2']);
    expect(model.cluster.metadata.annotations).not.toHaveProperty(['koschei.dev/upgrade-agents']);
    expect(steps(model, from)).toEqual([
      'delete Pod/shop-4-0',
      'delete Pod/shop-3-0',
      'delete Pod/shop-2-0',
      expect.stringMatching(/^switchover shop-[234]$/),
      'delete Pod/shop-1-0',
    ]);
  });

  it('hand over to nobody who may not become the primary', async () => {
    const options = { instances: [{ name: 'shop-2', noFailover: true }] };
    const model = await running(1, 1, options);
    model.sync = { term: 1, mode: 'sync', names: [{ instance: 'shop-2', dataId: '2'.repeat(16) }] };
    model.edit(spec(1, 1, { ...options, postgres: { image: 'postgres:17.9' } }));
    await model.converge();
    expect(steps(model, 0)).not.toContain('switchover shop-2');
    expect(conditionOf(model, 'Progressing')).toMatchObject({
      message: 'Waiting for a standby that can take over',
    });
  });

  it('of a single instance restart it', async () => {
    const model = await running(0, 0);
    const from = model.done.length;
    model.edit(spec(0, 0, { podMetadata: { labels: { team: 'a' } } }));
    await model.converge();
    expect(steps(model, from)).toEqual(['delete Pod/shop-1-0']);
  });

  it('wait while another instance does not work', async () => {
    const model = await running();
    model.broken.add('shop-2');
    model.react();
    const from = model.done.length;
    model.edit(spec(1, 2, { postgres: { image: 'postgres:17.9' } }));
    await model.converge();
    expect(steps(model, from)).toEqual([]);
    expect(conditionOf(model, 'Progressing')).toMatchObject({
      status: 'True',
      message: 'Waiting for shop-2 to work again',
    });
  });

  it('restart for a raised setting, the primary by a switchover', async () => {
    const model = await running();
    const from = model.done.length;
    model.edit(spec(1, 2, { postgres: { parameters: { max_connections: 200 } } }));
    await model.converge();
    expect(steps(model, from)).toEqual([
      'restart shop-4',
      'restart shop-3',
      'restart shop-2',
      expect.stringMatching(/^switchover /),
      'restart shop-1',
    ]);
  });

  it('do not hand over to a standby that has not read the configuration yet, and will need a restart, too', async () => {
    const model = await running();
    const before = new Map(model.members);
    model.edit(spec(1, 2, { postgres: { parameters: { max_connections: 200 } } }));
    await model.pass();
    model.react();
    const leader = model.leader?.instance ?? '';
    for (const [name, says] of before) if (name !== leader) model.members.set(name, says);
    const from = model.done.length;
    await model.pass();
    expect(steps(model, from)).toEqual([]);
    model.react();
    await model.converge();
    expect(steps(model, from).filter((step) => step.startsWith('switchover'))).toHaveLength(1);
  });

  it('stop at the first standby that does not come back, and leave the primary alone', async () => {
    const model = await running();
    const leader = model.leader?.instance;
    const from = model.done.length;
    model.edit(spec(1, 2, { postgres: { parameters: { max_connections: 200 } } }));
    await model.pass();
    model.react();
    await model.pass();
    expect(steps(model, from)).toEqual(['restart shop-4']);
    // Postgres does not start with what was asked for.
    model.broken.add('shop-4');
    model.react();
    await model.converge();
    expect(steps(model, from)).toEqual(['restart shop-4']);
    expect(model.leader?.instance).toBe(leader);
    expect(model.cluster.status).toMatchObject({ primary: leader, ready: '3/4' });
    expect(conditionOf(model, 'Progressing')).toMatchObject({
      status: 'True',
      message: 'Waiting for shop-4 to work again',
    });
    // The value is taken back, and the standby comes back with it.
    model.edit(spec(1, 2));
    model.broken.delete('shop-4');
    await model.pass();
    model.react();
    await model.converge();
    expect(model.leader?.instance).toBe(leader);
    expect(model.cluster.status).toMatchObject({ ready: '4/4' });
  });

  it('lower a setting on the primary first, in place: a standby may not have less', async () => {
    const model = await running(1, 2, { postgres: { parameters: { max_connections: 200 } } });
    const from = model.done.length;
    model.edit(spec(1, 2, { postgres: { parameters: { max_connections: 150 } } }));
    await model.converge();
    expect(steps(model, from)).toEqual([
      'restart shop-1',
      'restart shop-4',
      'restart shop-3',
      'restart shop-2',
    ]);
    expect(new Set(model.inForce.values())).toEqual(new Set(['150']));
  });

  it('do not restart without end what does not take effect', async () => {
    const model = await running(0, 0);
    model.edit(spec(0, 0, { postgres: { parameters: { max_connections: 200 } } }));
    const from = model.done.length;
    for (let n = 0; n < 12; n += 1) {
      await model.pass();
      model.react();
      // Whatever the agent did, Postgres still has the old value.
      model.inForce.set('shop-1', '100');
      model.react();
    }
    expect(steps(model, from)).toHaveLength(2);
    expect(conditionOf(model, 'SettingsApplied')).toMatchObject({
      status: 'False',
      reason: 'RestartPending',
    });
  });
});

describe('an instance that replays late', () => {
  const instances = [{ name: 'shop-3', applyDelaySeconds: 3_600 }];

  it('never leads, and is well also while it does not stream', async () => {
    const model = await running(1, 1, { instances });
    expect(model.config?.instances).toEqual({ 'shop-3': { noFailover: true, applyDelaySeconds: 3_600 } });
    const catchingUp = (name: string) => {
      const says = model.members.get(name);
      if (says !== undefined) model.members.set(name, { ...says, state: 'catching-up' });
      return membersOf(model.snapshot).find((each) => each.name === name)?.healthy;
    };
    expect(catchingUp('shop-3')).toBe(true);
    expect(catchingUp('shop-2')).toBe(false);
  });
});

describe('slots that are not Koschei’s', () => {
  it('are told when they hold much WAL', async () => {
    const model = await running(1, 0);
    expect(conditionOf(model, 'SlotsHealthy')).toMatchObject({ status: 'True', reason: 'SlotsInOrder' });
    model.slotProblem = { reason: 'SlotHoldsWal', message: 'logical slot "feed" holds more' };
    model.react();
    await model.converge();
    expect(conditionOf(model, 'SlotsHealthy')).toMatchObject({
      status: 'False',
      reason: 'SlotHoldsWal',
      message: 'shop-1: logical slot "feed" holds more',
    });
  });
});

describe('a refused spec', () => {
  it('touches nothing when none was accepted before', async () => {
    const model = new Model({ storage: { size: '1Gi' }, replicas: { synchronous: -1 } });
    await model.converge();
    expect(model.done).toEqual([]);
    expect(conditionOf(model, 'Accepted')).toMatchObject({ status: 'False', reason: 'InvalidSpec' });
  });

  it('leaves the accepted one in force', async () => {
    const model = await running(1, 1);
    const from = model.done.length;
    model.edit({ ...spec(1, 3), storage: { size: '512Mi' } });
    await model.converge();
    expect(model.done.slice(from)).toEqual([]);
    expect(conditionOf(model, 'Accepted')).toMatchObject({ status: 'False', reason: 'StorageShrink' });
    expect(model.cluster.status).toMatchObject({ phase: 'Running', ready: '3/3' });
  });
});

describe('deletion', () => {
  it('stops the standbys, then the primary, and keeps volumes and credentials', async () => {
    const model = await running(1, 1);
    const from = model.done.length;
    model.delete();
    const first = await model.pass();
    expect(kinds(first.actions).filter((each) => each.startsWith('delete'))).toEqual([
      'delete PgInstance/shop-2',
      'delete PgInstance/shop-3',
    ]);
    model.react();
    await model.pass();
    model.react();
    await model.pass();
    expect(model.cluster.metadata.finalizers).toEqual([]);
    expect(model.claims.size).toBe(3);
    const deleted = kinds(model.done.slice(from)).filter((each) => each.startsWith('delete'));
    expect(deleted.every((each) => each.includes('PgInstance'))).toBe(true);
    expect(model.initialized).toBe(true);
  });

  it('removes volumes, credentials and state when the spec says so', async () => {
    const model = await running(1, 1, { deletionPolicy: 'Delete' });
    model.delete();
    for (let n = 0; n < 4; n += 1) {
      await model.pass();
      model.react();
    }
    expect(model.claims.size).toBe(0);
    expect(model.objects.has('Secret/shop-app')).toBe(false);
    expect(model.initialized).toBe(false);
    expect(model.cluster.metadata.finalizers).toEqual([]);
  });

  it('waits for etcd when its state is to be removed', async () => {
    const model = await running(0, 0, { deletionPolicy: 'Delete' });
    model.delete();
    await model.pass();
    model.react();
    model.etcdAnswers = false;
    await model.pass();
    expect(model.cluster.metadata.finalizers).toEqual(['koschei.dev/volumes']);
  });
});

describe('adoption', () => {
  const old = 'oldclusterid0001';
  /** Volumes of an earlier cluster, of which etcd knows nothing. */
  const withoutState = async () => {
    const model = new Model(spec(1, 1));
    const lastSeen = JSON.stringify({ dataId: 'aa', timeline: 3, lsn: '0/5000060', role: 'primary' });
    model.claims.set(
      'shop-2',
      filledClaim('shop', old, 'shop-2', { [operatorAnnotation.lastSeen]: lastSeen }),
    );
    model.claims.set('shop-3', filledClaim('shop', old, 'shop-3'));
    await model.converge();
    return model;
  };

  it('goes on with the id and all volumes of an earlier cluster of this name', async () => {
    const model = new Model(spec(1, 1));
    model.initialized = true;
    for (const name of ['shop-2', 'shop-3', 'shop-7']) model.claims.set(name, filledClaim('shop', old, name));
    for (let n = 0; n < 10 && model.instances.size === 0; n += 1) await model.pass();
    expect(model.cluster.status?.clusterId).toBe(old);
    expect([...model.instances.keys()]).toEqual(['shop-2', 'shop-3', 'shop-7']);
    expect([...model.instances.values()].every(({ spec: { initMode } }) => initMode === 'clone')).toBe(true);
  });

  it('starts nothing when etcd knows nothing of the volumes, and says what is on them', async () => {
    const model = await withoutState();
    expect(model.instances.size).toBe(0);
    expect(model.config).toBeUndefined();
    expect(model.cluster.status?.phase).toBe('WaitingForDecision');
    expect(model.cluster.status?.volumes).toMatchObject([
      { instance: 'shop-2', timeline: 3, lsn: '0/5000060' },
      { instance: 'shop-3' },
    ]);
  });

  it('goes on with the volume that a person names, and gives the others their turn later', async () => {
    const model = await withoutState();
    const { metadata } = model.cluster;
    const slice = model.objects.get('EndpointSlice/shop-rw-leader');
    if (slice === undefined) throw new Error('there is no slice');
    const annotations = { 'koschei.dev/term': '9' };
    model.objects.set('EndpointSlice/shop-rw-leader', {
      ...slice,
      metadata: { ...slice.metadata, annotations },
    });
    const decided = { ...metadata.annotations, 'koschei.dev/adopt-primary': 'shop-3' };
    model.cluster = { ...model.cluster, metadata: { ...metadata, annotations: decided } };
    await model.converge();
    expect([...model.instances.keys()]).toEqual(['shop-3']);
    expect(model.config).toMatchObject({ members: ['shop-3'], adopt: { instance: 'shop-3', term: 9 } });
    expect(model.config?.adopt?.timeline).toBeGreaterThan(3);
    model.initialized = true;
    const founder = {
      instance: 'shop-3',
      dataId: '0123456789abcdef',
      bootId: 'boot-0001',
      address: '10.0.0.1',
    };
    model.leader = { ...founder, term: 10, timeline: 14, phase: 'leading', beat: 1, members: [] };
    model.sync = { term: 10, mode: 'sync', names: [] };
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual(['shop-1', 'shop-2', 'shop-3']);
    expect(model.config?.adopt).toBeUndefined();
    expect(model.cluster.metadata.annotations).toEqual({});
  });

  it('does not choose between the volumes of two earlier clusters', async () => {
    const model = new Model(spec(1, 1));
    model.claims.set('shop-1', filledClaim('shop', old, 'shop-1'));
    model.claims.set('shop-2', filledClaim('shop', 'oldclusterid0002', 'shop-2'));
    await model.converge();
    expect(model.done).toEqual([]);
    expect(model.cluster.status?.phase).toBe('WaitingForDecision');
  });

  it('is refused to another major version', async () => {
    const model = new Model(spec(1, 1, { postgres: { version: 17 } }));
    model.claims.set(
      'shop-1',
      filledClaim('shop', old, 'shop-1', { [operatorAnnotation.postgresVersion]: '16' }),
    );
    await model.converge();
    expect(model.done).toEqual([]);
    expect(conditionOf(model, 'Accepted')).toMatchObject({ reason: 'MajorUpgradeRefused' });
  });
});

describe('whatever happens', () => {
  const edit = fc.record({
    synchronous: fc.integer({ min: 0, max: 2 }),
    asynchronous: fc.integer({ min: 0, max: 3 }),
    image: fc.constantFrom('postgres:17', 'postgres:17.9'),
    connections: fc.constantFrom(100, 150, 200),
  });
  const event = fc.oneof(
    { weight: 3, arbitrary: edit.map((change) => ({ kind: 'edit' as const, change })) },
    {
      weight: 6,
      arbitrary: fc.integer({ min: 0, max: 6 }).map((limit) => ({ kind: 'pass' as const, limit })),
    },
    { weight: 4, arbitrary: fc.constant({ kind: 'react' as const }) },
    {
      weight: 1,
      arbitrary: fc.integer({ min: 1, max: 5 }).map((ordinal) => ({ kind: 'break' as const, ordinal })),
    },
    { weight: 1, arbitrary: fc.boolean().map((answers) => ({ kind: 'etcd' as const, answers })) },
    {
      weight: 1,
      arbitrary: fc.integer({ min: 1, max: 5 }).map((ordinal) => ({ kind: 'lose' as const, ordinal })),
    },
  );

  it('no leader, synchronous standby or volume is removed, one pod at a time is, and it converges', {
    timeout: 120_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 40 }), async (events) => {
        const model = await running(1, 1);
        for (const each of events) {
          switch (each.kind) {
            case 'edit': {
              const { synchronous, asynchronous, image, connections } = each.change;
              const postgres = { image, parameters: { max_connections: connections } };
              model.edit(spec(synchronous, asynchronous, { postgres }));
              break;
            }
            case 'pass': {
              const { actions } = planCluster(model.snapshot);
              checkSafe(model, actions);
              await model.pass(each.limit);
              break;
            }
            case 'react':
              model.react();
              break;
            case 'break':
              model.broken.add(`shop-${each.ordinal}`);
              model.react();
              break;
            case 'etcd':
              model.etcdAnswers = each.answers;
              break;
            case 'lose':
              model.instances.delete(`shop-${each.ordinal}`);
              break;
          }
        }
        model.broken.clear();
        model.etcdAnswers = true;
        model.react();
        await model.converge(120);
        expect(planCluster(model.snapshot).actions).toEqual([]);
        expect(model.cluster.status?.phase).toBe('Running');
      }),
      { numRuns: Number(process.env.KOSCHEI_RUNS ?? 40) },
    );
  });

  it('the same snapshot gives the same plan', async () => {
    const { snapshot } = await running(1, 1);
    expect(planCluster(snapshot)).toEqual(planCluster(snapshot));
  });
});

function checkSafe(model: Model, actions: readonly Action[]): void {
  const deletions = actions.flatMap((action) => (action.do === 'delete' ? [action] : []));
  const needed = [model.leader?.instance, ...(model.sync?.names ?? []).map(({ instance }) => instance)];
  for (const { resource, ref } of deletions) {
    expect(['PgInstance', 'Pod']).toContain(resource.kind);
    if (resource.kind === 'PgInstance') expect(needed).not.toContain(ref.name);
    if (resource.kind === 'Pod' && model.instances.size > 1)
      expect(ref.name).not.toBe(`${model.leader?.instance}-0`);
  }
  const disruptive = actions.filter(
    (action) =>
      action.do === 'request' ||
      action.do === 'command' ||
      (action.do === 'delete' && action.resource.kind === 'Pod'),
  );
  expect(disruptive.length).toBeLessThanOrEqual(1);
  if (!model.etcdAnswers) expect(deletions).toEqual([]);
}

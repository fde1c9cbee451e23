import { describe, expect, it } from 'vitest';
import { instance } from '../../testing/instance-fixtures.ts';
import { initJob } from './init-job.ts';
import { podTemplate } from './pod.ts';
import { statefulSet } from './stateful-set.ts';

const api = 'discovery.k8s.io/v1';
const run = (of = instance()) =>
  podTemplate({ instance: of, endpointSliceApi: api, purpose: { do: 'run', logLevel: 'info' } });
const init = (of = instance()) =>
  podTemplate({ instance: of, endpointSliceApi: api, purpose: { do: 'init', mode: 'clone' } });

describe('pods', () => {
  it.each([
    ['of instances', run()],
    ['of init Jobs', init()],
  ])('%s satisfy the Pod Security Standard "restricted"', (_, { spec }) => {
    // https://kubernetes.io/docs/concepts/security/pod-security-standards/
    expect(spec?.securityContext).toMatchObject({
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const containers = [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])];
    for (const { securityContext } of containers) {
      expect(securityContext).toMatchObject({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
    }
    const kinds = (spec?.volumes ?? []).map((volume) => Object.keys(volume).find((key) => key !== 'name'));
    expect(new Set(kinds)).toEqual(new Set(['persistentVolumeClaim', 'emptyDir', 'secret']));
    expect(spec?.shareProcessNamespace).toBeUndefined();
    expect(spec?.hostNetwork).toBeUndefined();
  });

  it('of init Jobs are scheduled as those of the instance, because the volume stays where they were', () => {
    const placed = instance({
      placement: {
        antiAffinity: 'required',
        nodeSelector: { disk: 'fast' },
        tolerations: [{ key: 'db', operator: 'Exists' }],
        topologySpreadConstraints: [{ maxSkew: 1, topologyKey: 'zone', whenUnsatisfiable: 'DoNotSchedule' }],
        priorityClassName: 'high',
      },
      resources: { requests: { cpu: '1' } },
    });
    const [a, b] = [run(placed).spec, init(placed).spec];
    for (const field of [
      'affinity',
      'nodeSelector',
      'tolerations',
      'topologySpreadConstraints',
      'priorityClassName',
      'securityContext',
    ] as const) {
      expect(a?.[field]).toEqual(b?.[field]);
      expect(a?.[field]).toBeDefined();
    }
    expect(a?.containers[0]?.resources).toEqual(b?.containers[0]?.resources);
  });

  it('have a token for the Kubernetes API only where an agent runs', () => {
    expect(run().spec?.automountServiceAccountToken).toBe(true);
    expect(init().spec?.automountServiceAccountToken).toBe(false);
  });

  it('of init Jobs are in no Service', () => {
    expect(run().metadata?.labels?.['app.kubernetes.io/component']).toBe('postgres');
    expect(init().metadata?.labels?.['app.kubernetes.io/component']).not.toBe('postgres');
  });

  it('have the labels that the user adds, but not in place of ours', () => {
    const labelled = instance({ podMetadata: { labels: { team: 'a', 'koschei.dev/cluster': 'mine' } } });
    expect(run(labelled).metadata?.labels).toMatchObject({ team: 'a', 'koschei.dev/cluster': 'shop' });
  });

  it('show their secrets to the group of Postgres only', () => {
    const secrets = run().spec?.volumes?.flatMap(({ secret }) => secret ?? []) ?? [];
    expect(secrets.map(({ secretName }) => secretName)).toEqual([
      'shop-server-tls',
      'shop-replication-tls',
      'shop-etcd-tls',
    ]);
    expect(secrets.every(({ defaultMode }) => defaultMode === 0o440)).toBe(true);
  });
});

describe('a StatefulSet', () => {
  it('does not change with the log level, which travels through etcd', () => {
    const first = statefulSet(instance({ logLevel: 'info' }), api, undefined);
    expect(statefulSet(instance({ logLevel: 'debug' }), api, first).spec?.template).toEqual(
      first.spec?.template,
    );
  });
  it('replaces its pod only when somebody deletes it', () => {
    expect(statefulSet(instance(), api, undefined).spec).toMatchObject({
      replicas: 1,
      updateStrategy: { type: 'OnDelete' },
    });
  });
});

describe('an init Job', () => {
  it('carries a mark that changes with its template', () => {
    const mark = (image: string) =>
      initJob(instance({ postgres: { version: 17, image } }), 'clone', api).metadata.annotations;
    expect(mark('a')).toEqual(mark('a'));
    expect(mark('a')).not.toEqual(mark('b'));
  });
});

import { expect, it } from 'vitest';
import { chooseApis, DiscoveryError, parseDiscovery } from './discovery.ts';

const document = (version: [major: string, minor: string, git: string], groupVersions: string[]) => {
  const [major, minor, gitVersion] = version;
  const groups = groupVersions.map((groupVersion) => ({
    name: groupVersion.split('/')[0],
    versions: [{ groupVersion, version: groupVersion.split('/')[1] }],
    preferredVersion: { groupVersion },
  }));
  return parseDiscovery(
    { major, minor, gitVersion, platform: 'linux/amd64' },
    { kind: 'APIGroupList', apiVersion: 'v1', groups },
  );
};
const v120 = document(['1', '20', 'v1.20.2'], ['apps/v1', 'policy/v1beta1', 'discovery.k8s.io/v1beta1']);
const v122 = document(
  ['1', '22+', 'v1.22.17-eks-0a21954'],
  ['apps/v1', 'policy/v1beta1', 'policy/v1', 'discovery.k8s.io/v1beta1', 'discovery.k8s.io/v1'],
);
const v134 = document(
  ['1', '34', 'v1.34.1'],
  ['apps/v1', 'policy/v1', 'discovery.k8s.io/v1', 'koschei.dev/v1'],
);

it('takes the beta APIs of 1.20', () => {
  expect(chooseApis(v120)).toMatchObject({
    serverVersion: { major: 1, minor: 20, gitVersion: 'v1.20.2' },
    endpointSlice: 'discovery.k8s.io/v1beta1',
    podDisruptionBudget: 'policy/v1beta1',
    hasCelQuantities: false,
    hasUnhealthyPodEvictionPolicy: false,
    hasKoschei: false,
  });
});

it('prefers the stable API where both are served, and reads minors like "22+"', () => {
  expect(chooseApis(v122)).toMatchObject({
    serverVersion: { major: 1, minor: 22 },
    endpointSlice: 'discovery.k8s.io/v1',
    podDisruptionBudget: 'policy/v1',
    hasCelQuantities: false,
  });
});

it('takes the stable APIs of 1.34', () => {
  expect(chooseApis(v134)).toMatchObject({
    endpointSlice: 'discovery.k8s.io/v1',
    podDisruptionBudget: 'policy/v1',
    hasCelQuantities: true,
    hasUnhealthyPodEvictionPolicy: true,
    hasKoschei: true,
  });
});

it('goes without PodDisruptionBudgets, but not without EndpointSlices and not with an old server', () => {
  const none = document(['1', '30', 'v1.30.0'], ['apps/v1', 'discovery.k8s.io/v1']);
  expect(chooseApis(none).podDisruptionBudget).toBeUndefined();
  expect(() => chooseApis(document(['1', '30', 'v1.30.0'], ['apps/v1']))).toThrow(DiscoveryError);
  const old = document(['1', '19', 'v1.19.7'], ['discovery.k8s.io/v1beta1']);
  expect(() => chooseApis(old)).toThrow('expected Kubernetes 1.20 or newer');
  expect(() => chooseApis(document(['', '', 'v?'], ['discovery.k8s.io/v1']))).toThrow('expected a version');
});

it('refuses documents that are something else', () => {
  expect(() => parseDiscovery({ kind: 'Status' }, { groups: [] })).toThrow(DiscoveryError);
});

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chooseApis, parseDiscovery } from '../src/kube/index.ts';
import { repository } from './cluster/settings.ts';
import { manifestsFor, withImages } from './manifests.ts';

/** What a server of this minor version offers, as far as it matters here. */
const apisOf = (minor: number) =>
  chooseApis(
    parseDiscovery(
      { major: '1', minor: String(minor), gitVersion: `v1.${minor}.0`, platform: 'linux/amd64' },
      {
        kind: 'APIGroupList',
        groups: ['apps/v1', minor >= 21 ? 'discovery.k8s.io/v1' : 'discovery.k8s.io/v1beta1'].map(
          (groupVersion) => ({
            name: groupVersion.split('/')[0],
            versions: [{ groupVersion, version: groupVersion.split('/')[1] }],
          }),
        ),
      },
    ),
  );

describe("somebody's own cluster gets the package for its version", () => {
  it.each([
    [20, 'deploy/overlays/kubernetes-1.20'],
    [24, 'deploy/overlays/kubernetes-1.20'],
    [25, 'deploy/overlays/kubernetes-1.25'],
    [28, 'deploy/overlays/kubernetes-1.25'],
    [29, 'deploy'],
    [34, 'deploy'],
  ])('1.%i: %s', (minor, folder) => {
    expect(manifestsFor(apisOf(minor))).toBe(folder);
    const text = readFileSync(join(repository, folder, 'kustomization.yaml'), 'utf8');
    expect(text).not.toContain('localhost/');
  });
});

describe('images', () => {
  const manifests = [
    '        image: ghcr.io/koschei/koschei:0.1.0',
    '          image: quay.io/coreos/etcd:v3.6.16',
    '          value: docker.io/library/postgres:{version}',
  ].join('\n');

  it('of Koschei alone are replaced without a prefix', () => {
    expect(withImages(manifests, 'registry.example/me/koschei:dev', undefined).split('\n')).toEqual([
      '        image: registry.example/me/koschei:dev',
      '          image: quay.io/coreos/etcd:v3.6.16',
      '          value: docker.io/library/postgres:{version}',
    ]);
  });

  it('all come from below a prefix', () => {
    expect(withImages(manifests, 'r.example/koschei:dev', 'r.example').split('\n')).toEqual([
      '        image: r.example/koschei:dev',
      '          image: r.example/etcd:3.5',
      '          value: r.example/postgres:{version}',
    ]);
  });
});

import { describe, expect, it } from 'vitest';
import { isolatesUsers } from './versions.ts';

describe('versions of etcd that keep clusters apart', () => {
  it.each(['3.6.14', '3.6.16', 'v3.6.14', '3.7.1', '3.8.0', '4.0.0'])('%s does', (version) => {
    expect(isolatesUsers(version)).toBe(true);
  });

  it.each(['3.4.23', '3.5.21', '3.5.33', '3.6.13', '3.7.0', '3.7.0-rc.1', '2.3.8', '', 'unknown'])(
    '%s does not',
    (version) => {
      expect(isolatesUsers(version)).toBe(false);
    },
  );
});

import { expect, it } from 'vitest';
import { troubleOf } from './trouble.ts';

it.each([
  ['14 UNAVAILABLE: No connection established. Last error: connect ECONNREFUSED 10.0.0.1:2379', 'refused'],
  ['14 UNAVAILABLE: Name resolution failed for target dns:nowhere:2379', 'name'],
  ['14 UNAVAILABLE: Last error: getaddrinfo ENOTFOUND nowhere', 'name'],
  ['14 UNAVAILABLE: Last error: unable to get local issuer certificate', 'certificates'],
  ['14 UNAVAILABLE: Last error: write EPROTO 0A00010B:SSL routines:wrong version number', 'certificates'],
  ['no answer within 2000 ms', 'in time'],
  ['4 DEADLINE_EXCEEDED: Deadline exceeded', 'in time'],
  ['etcdserver: permission denied', 'right'],
  ['14 UNAVAILABLE: Received HTTP status code 418 from the coffee machine', 'does not answer as etcd does'],
])('%s', (text, what) => {
  expect(troubleOf(text).what).toContain(what);
  expect(troubleOf(text).what).not.toMatch(/10\.0\.0\.1|coffee/);
});

it('tells what etcd refuses from what cannot be reached', () => {
  expect(troubleOf('etcdserver: permission denied').refused).toBe(true);
  expect(troubleOf('connect ECONNREFUSED').refused).toBe(false);
});

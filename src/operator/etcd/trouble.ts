/** What keeps an etcd from being used, in the order in which texts are looked through. */
const kinds: readonly (readonly [RegExp, { readonly refused: boolean; readonly what: string }])[] = [
  [
    /permission denied|unauthenticated|invalid auth|auth:|user name/i,
    { refused: true, what: 'the client certificate has no right to the keys of this cluster' },
  ],
  [
    /certificate|altname|self.signed|\bssl\b|\btls\b|EPROTO|handshake/i,
    { refused: true, what: 'the certificates of client and server do not fit' },
  ],
  [/ECONNREFUSED/, { refused: false, what: 'the connection was refused' }],
  [/ENOTFOUND|EAI_AGAIN|name resolution|DNS/i, { refused: false, what: 'the name was not found' }],
  [
    /no answer within|DEADLINE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|timed? ?out/i,
    { refused: false, what: 'no answer came in time' },
  ],
];

/**
 * The kind of a trouble with etcd, from an error's text. Statuses say only this about an etcd that a user names: what
 * else answers at an address that anybody may choose is nobody's business but the operator's log's.
 * `refused`: etcd was reached, and said no.
 */
export function troubleOf(text: string): { readonly refused: boolean; readonly what: string } {
  return (
    kinds.find(([pattern]) => pattern.test(text))?.[1] ?? {
      refused: false,
      what: 'it does not answer as etcd does',
    }
  );
}

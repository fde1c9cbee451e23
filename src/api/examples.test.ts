import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { PgCluster } from './pgcluster.ts';
import { readSpec, validateName } from './refusals.ts';

const folder = join(import.meta.dirname, '../../deploy/examples');
const files = readdirSync(folder).filter((file) => file.endsWith('.yaml'));

it.each(files)('the example %s is accepted', (file) => {
  const documents = parseAllDocuments(readFileSync(join(folder, file), 'utf8')).map((document) =>
    document.toJS(),
  );
  const clusters = documents.filter((document) => document.kind === 'PgCluster');
  for (const { metadata, spec, ...head } of clusters) {
    expect(readSpec(spec)).toMatchObject({ ok: true });
    expect(validateName(metadata.name)).toEqual([]);
    expect(PgCluster.pick({ apiVersion: true, kind: true }).strict().parse(head)).toEqual(head);
  }
});

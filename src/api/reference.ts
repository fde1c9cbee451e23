import { conditionReasons, conditionTypes } from './conditions.ts';
import type { Crd, StructuralSchema } from './crd.ts';
import { annotation } from './names.ts';
import { ownedParameters } from './owned-parameters.ts';

/** The field reference, docs/reference.md, from the same schemas as the CRDs. */
export function referenceDocument(definitions: readonly Crd[]): string {
  return [
    '# Reference',
    '',
    'Generated from the schemas by `npm run generate`. `kubectl explain pgcluster.spec` says the same.',
    '',
    ...definitions.flatMap(resourceSection),
    '## Parameters that a PgCluster may not set',
    '',
    `${ownedParameters.map((name) => `\`${name}\``).join(', ')}.`,
    '',
    '`synchronous_commit` may be `on` or `remote_apply`; sessions may go below that for themselves.',
    '',
    '## Conditions',
    '',
    ...table(
      ['Type', 'Meaning'],
      Object.entries(conditionTypes).map(([type, text]) => [`\`${type}\``, text]),
    ),
    ...table(
      ['Reason', 'Meaning'],
      Object.entries(conditionReasons).map(([reason, text]) => [`\`${reason}\``, text]),
    ),
    '## Annotations',
    '',
    ...table(
      ['Annotation', 'Meaning'],
      [
        [
          `\`${annotation.adoptPrimary}\``,
          'On a PgCluster that waits for a decision: the instance to go on with, whatever others have beyond it; or `auto`: the one that led last, as soon as it is proved which one that was.',
        ],
        [
          `\`${annotation.switchover}\``,
          'On a PgCluster: asks for a switchover to the instance named, or to `any`. Koschei removes it when it has passed it on.',
        ],
        [
          `\`${annotation.failover}\``,
          'On a PgCluster whose primary is lost with all that could take over without loss: `<instance> acceptLoss=<term> primaryIsOff` makes that instance the primary. Without the latter words it is refused, with an Event that says what may be lost. Koschei removes it when it has passed it on.',
        ],
        [
          `\`${annotation.reclone}\``,
          'On a PgCluster: asks for the data of the standby named to be thrown away and copied anew from the primary. Koschei removes it when it has passed it on.',
        ],
        [
          `\`${annotation.upgradeAgents}\``,
          "On a PgCluster, with any value: asks for the agents of all its instances to be replaced by those of the operator's present version. Pods are replaced one by one, standbys first, the primary last and by a switchover. Koschei removes it when it has passed it on.",
        ],
        [`\`${annotation.term}\``, 'On the EndpointSlice of `-rw`: the term of the leader that wrote it.'],
      ],
    ),
  ]
    .join('\n')
    .replace(/\n+$/, '\n');
}

function resourceSection(definition: Crd): string[] {
  const { names, versions } = definition.spec;
  const schema = versions[0]?.schema.openAPIV3Schema;
  const { spec, status } = schema?.properties ?? {};
  return [
    `## ${names.kind}`,
    '',
    `${schema?.description ?? ''} Short name: \`${names.shortNames.join('`, `')}\`.`,
    '',
    ...(spec === undefined ? [] : fieldTable('spec', spec)),
    ...(status === undefined ? [] : fieldTable('status', status)),
  ];
}

const fieldTable = (name: string, schema: StructuralSchema): string[] => [
  `### ${name}`,
  '',
  ...table(['Field', 'Type', 'Default', 'Meaning'], rows('', schema)),
];

function rows(path: string, schema: StructuralSchema): string[][] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const at = path === '' ? name : `${path}.${name}`;
    const required = schema.required?.includes(name) === true ? '*required*' : '';
    const shown =
      field.type === 'object' || field.default === undefined ? '' : `\`${JSON.stringify(field.default)}\``;
    return [
      [`\`${at}\``, typeOf(field), shown || required, field.description ?? ''],
      ...rows(field.items === undefined ? at : `${at}[]`, field.items ?? field),
    ];
  });
}

function typeOf(schema: StructuralSchema): string {
  if (schema['x-kubernetes-int-or-string'] === true) return 'integer or string';
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value || '""'}\``).join(', ');
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`;
  if (schema.additionalProperties !== undefined) return `map to ${typeOf(schema.additionalProperties)}`;
  const { minimum, maximum } = schema;
  if (minimum !== undefined && maximum !== undefined) return `${schema.type}, ${minimum} to ${maximum}`;
  return schema.type ?? '';
}

/** A GitHub table; a `|` inside a cell is escaped. */
const table = (header: string[], body: string[][]): string[] => [
  ...[header, header.map(() => '---'), ...body].map(
    (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`,
  ),
  '',
];

import type { Node, PersistentVolume } from '../../kube/index.ts';

/** What the Kubernetes API says about nodes and volumes; asked for only while an instance waits for its node. */
export interface Fleet {
  readonly nodes: { readonly total: number; readonly ready: number };
  /** By name of the claim: whether a node that is ready can mount the volume. */
  readonly reach: ReadonlyMap<string, Reach>;
}

/**
 * `ready`: a node that is ready can mount it; `stranded`: only nodes that are away or gone can, and it is local to a node;
 * `elsewhere`: no node that is ready can mount it now, but it is not tied to one node (to a zone, for example).
 */
export type Reach = 'ready' | 'stranded' | 'elsewhere';

type Terms = NonNullable<
  NonNullable<NonNullable<PersistentVolume['spec']>['nodeAffinity']>['required']
>['nodeSelectorTerms'];
type Requirement = NonNullable<Terms[number]['matchExpressions']>[number];

export const isNodeReady = (node: Node): boolean =>
  node.status?.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') === true;

/**
 * Where a volume can be mounted, by its node affinity.
 * @param nodes all that the API knows
 */
export function reachOf(volume: PersistentVolume, nodes: readonly Node[]): Reach {
  const terms = volume.spec?.nodeAffinity?.required?.nodeSelectorTerms ?? [];
  if (terms.length === 0) return 'ready';
  if (nodes.some((node) => isNodeReady(node) && terms.some((term) => matches(term, node)))) return 'ready';
  return terms.every(isOfOneNode) ? 'stranded' : 'elsewhere';
}

/**
 * Whether a term can only mean one node: one value of a label that is not that of a zone or a region, such as
 * `kubernetes.io/hostname` or the topology key of a driver of local volumes.
 */
function isOfOneNode({ matchExpressions = [], matchFields = [] }: Terms[number]): boolean {
  return [...matchExpressions, ...matchFields].some(
    ({ key, operator, values }) =>
      operator === 'In' && values?.length === 1 && !/(^|[/.-])(zone|region)$/.test(key),
  );
}

/** The rules of the scheduler: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/node-selector-requirement/ */
function matches({ matchExpressions = [], matchFields = [] }: Terms[number], node: Node): boolean {
  // A term without any requirement matches nothing.
  if (matchExpressions.length + matchFields.length === 0) return false;
  return (
    matchExpressions.every((each) => fits(each, node.metadata.labels?.[each.key])) &&
    matchFields.every((each) => fits(each, each.key === 'metadata.name' ? node.metadata.name : undefined))
  );
}

function fits({ operator, values = [] }: Requirement, found: string | undefined): boolean {
  switch (operator) {
    case 'In':
      return found !== undefined && values.includes(found);
    case 'NotIn':
      return found === undefined || !values.includes(found);
    case 'Exists':
      return found !== undefined;
    case 'DoesNotExist':
      return found === undefined;
    case 'Gt':
      return found !== undefined && Number(found) > Number(values[0]);
    case 'Lt':
      return found !== undefined && Number(found) < Number(values[0]);
    default:
      // A rule that is not known must not make a volume look lost.
      return true;
  }
}

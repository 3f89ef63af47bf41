/** A path template of google.api.http, compiled. */
export interface Template {
  /** Matches paths as they stand in a request, not yet decoded; one group for each variable. */
  readonly pattern: RegExp;
  /** The field paths of the variables, in the order of the groups. */
  readonly variables: readonly string[];
  /** Sorts templates: at each segment a literal comes before a variable, and that before the rest of a path. */
  readonly rank: string;
  /** The literal parts of the path, with nothing in the place of each variable. */
  readonly parts: readonly (string | undefined)[];
}

/** Writes a template as OpenAPI does, with the names given for its variables. */
export function writeTemplate({ parts }: Template, names: readonly string[]): string {
  const left = [...names];
  return parts.map((part) => part ?? `/{${left.shift()}}`).join('');
}

const SEGMENT = /\/(?:\{([a-z][\w.]*)(?:=([^{}]+))?\}|([^/{}:*]+))/gy;
const VERB = /^(?::([a-zA-Z]\w*))?$/;

/** Compiles `/v1/agents/{agent.id}/configs:reorder`, `/v1/models/{name=**}` and their like. */
export function compileTemplate(text: string): Template {
  let source = '';
  let rank = '';
  let end = 0;
  const variables: string[] = [];
  const parts: (string | undefined)[] = [];
  for (const [whole, variable, pattern = '*', literal] of text.matchAll(SEGMENT)) {
    end += whole.length;
    const compiled = compilePattern(literal ?? pattern);
    source += variable ? `/(${compiled.source})` : `/${compiled.source}`;
    rank += compiled.rank;
    parts.push(variable ? undefined : `/${literal}`);
    if (variable) variables.push(variable);
  }
  const tail = VERB.exec(text.slice(end));
  if (!tail || end === 0) throw new Error(`${text} is not a path template`);
  const verb = tail[1];
  if (verb) parts.push(`:${verb}`);
  const pattern = new RegExp(`^${source}${verb ? `:${verb}` : ''}$`);
  return { pattern, variables, parts, rank: rank + (verb ? '0' : '1') };
}

/** `*` is one segment, `**` one or more, anything else itself. */
function compilePattern(pattern: string): { source: string; rank: string } {
  const kinds = pattern.split('/').map((segment) => {
    if (segment === '*') return { source: '[^/]+', rank: '1' };
    if (segment === '**') return { source: '[^/].*', rank: '2' };
    return { source: segment.replace(/[^\w-]/g, '\\$&'), rank: '0' };
  });
  return { source: kinds.map((k) => k.source).join('/'), rank: kinds.map((k) => k.rank).join('') };
}

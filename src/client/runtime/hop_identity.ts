import { originOf } from '../../domain/origin.js';
import type { ResolutionHop } from '../resolution_types.js';

/** Names the origin and the key of a hop, without the key itself. */
export function credentialOf({ base_url, config_id, key }: ResolutionHop): string {
  const origin = originOf(base_url);
  switch (key.source) {
    case 'KEY_SOURCE_CONFIG':
      return `${origin} config ${config_id}`;
    case 'KEY_SOURCE_CREDENTIAL':
      return `${origin} credential ${key.name}`;
    default:
      return origin;
  }
}

import type { AuditServiceService } from '../../gen/ts/agentllm/v1/audit_service.js';
import { ServiceError } from '../errors.js';
import type { Handlers } from './method.js';
import type { Backend } from './service.js';

/** AuditService over the log of writes and the events beside it. */
export function auditService(_backend: Backend): Handlers<typeof AuditServiceService> {
  return {
    listAuditEvents() {
      throw ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'ListAuditEvents' });
    },
  };
}

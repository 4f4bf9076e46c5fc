<?php
// How it signs and names people: persistent, and the request's signature is checked.
$told = json_decode(file_get_contents(getenv('SAML_SETTINGS')), true);
$metadata[$told['issuer']] = [
    'host' => '__DEFAULT__',
    'privatekey' => 'provider.key',
    'certificate' => 'provider.crt',
    'auth' => 'people',
    'validate.authnrequest' => true,
    'authproc' => [
        3 => [
            'class' => 'saml:AttributeNameID',
            'attribute' => 'uid',
            'Format' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
        ],
    ],
] + $told['more'];
